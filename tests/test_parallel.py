"""Several devices that share batches train as one does: virtual devices of the processor, in processes of their own."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lusbook import parallel
from lusbook.errors import LusbookError
from lusbook.settings import PROJECT, make_settings
from tests.helpers import write_manifest

CHILD = """
import json, sys
from types import SimpleNamespace

import jax
import numpy as np
from keras.src.backend.common import dtypes

from lusbook import parallel, sifa, training, trials
from lusbook.backend import keras
from lusbook.experiments import EXPERIMENTS
from lusbook.loading import load_cohorts
from lusbook.settings import make_settings


def double():
    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    parse = keras.DTypePolicy._parse_name
    keras.DTypePolicy._parse_name = lambda policy, name: parse(policy, name.replace("float32", "float64"))
    variable = lambda *values, **options: keras.Variable(*values, **options | {"dtype": "float64"})
    training.keras = SimpleNamespace(Variable=variable, initializers=keras.initializers)
    sifa.ImagePool.__init__ = lambda pool, size, shape: setattr(pool, "batches", np.zeros((size, *shape)))
    compile_step = sifa.backend.compile_step

    def compile_double(*arguments):
        step = compile_step(*arguments)
        return lambda *arrays: step(*[np.asarray(array, "float64") for array in arrays])

    sifa.backend.compile_step = compile_double


settings = make_settings("smoke", **json.loads(sys.argv[1]))
histories, cohorts = {}, load_cohorts(settings)
for name in ("unet-covid", "sifa-covid-to-cap"):
    experiment = EXPERIMENTS[name]
    if experiment.method == "sifa":
        double()
    parallel.share_batches(experiment.method, settings)
    shared = {"training": cohorts, "settings": settings, "seed": (0,), "label": name}
    shared |= {"folder": sys.argv[2], "key": name}
    if experiment.method == "unet":
        network, histories[name] = trials.train_unet(experiment, parent=None, **shared)
    else:
        network, histories[name] = trials.train_sifa(experiment, **shared)
spread = {len(variable.value.sharding.device_set) for variable in network.state}
kinds = {str(variable.value.dtype) for variable in network.state}
print(json.dumps({"histories": histories, "spread": sorted(spread), "kinds": sorted(kinds)}))
"""
# SIFA in double precision. In float32 Adam makes a whole step of a gradient that is nothing but rounding, and deep
# layers of a few pixels amplify that: after three iterations any other order of a sum shows in the second decimal.
BATCHES = {
    "unet_batch_size": 4,
    "sifa_batch_size": 4,
    "unet_iterations": 10,
    "sifa_iterations": 10,
    "sifa_snapshots": 1,
}


def train(place, devices, overrides):
    place.mkdir()
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [json.dumps(overrides | {"devices": devices}), str(place)]
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_losses_are_those_of_one_device(tmp_path):
    overrides = {"cohorts": str(write_manifest(tmp_path, 32)), "image_size": 16, "sifa_pool_size": 3, **BATCHES}
    with ThreadPoolExecutor(2) as two:
        one, four = two.map(lambda devices: train(tmp_path / str(devices), devices, overrides), (1, 4))
    assert one.returncode == four.returncode == 0, (one.stderr + four.stderr)[-3000:]
    one, four = (json.loads(done.stdout) for done in (one, four))
    assert (one["spread"], four["spread"]) == ([1], [4]) and one["kinds"] == four["kinds"] == ["float64"]
    for name, rows in one["histories"].items():
        assert len(rows) == len(four["histories"][name]) == 10
        for row, other in zip(rows, four["histories"][name], strict=True):
            assert other == pytest.approx(row, abs=1e-4, rel=1e-4), name


@pytest.mark.parametrize(
    ("backend", "here", "batch", "message"),
    [
        ("tensorflow", 2, 4, "'devices': 2 devices need KERAS_BACKEND=jax, not tensorflow"),
        ("jax", 1, 4, "'devices': expected at most the 1 that are here, received 2"),
        ("jax", 2, 3, "'devices': unet_batch_size 3 cannot be shared out over 2"),
    ],
)
def test_what_cannot_be_shared_is_refused(monkeypatch, backend, here, batch, message):
    monkeypatch.setattr(parallel.keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(parallel.keras.distribution, "list_devices", lambda: [f"cpu:{i}" for i in range(here)])
    with pytest.raises(LusbookError, match=message):
        parallel.share_batches("unet", make_settings("smoke", devices=2, unet_batch_size=batch))
