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
from lusbook import parallel, trials
from lusbook.experiments import EXPERIMENTS
from lusbook.loading import load_cohorts
from lusbook.settings import make_settings

settings = make_settings("smoke", **json.loads(sys.argv[1]))
keep, histories, cohorts = {"folder": sys.argv[2], "key": ""}, {}, load_cohorts(settings)
for name in ("unet-covid", "sifa-covid-to-cap"):
    experiment = EXPERIMENTS[name]
    parallel.share_batches(experiment.method, settings)
    training = {"training": cohorts, "settings": settings, "seed": (0,), "label": name, **keep}
    if experiment.method == "unet":
        network, histories[name] = trials.train_unet(experiment, parent=None, **training)
    else:
        network, histories[name] = trials.train_sifa(experiment, **training)
spread = {len(variable.value.sharding.device_set) for variable in network.state}
print(json.dumps({"histories": histories, "spread": sorted(spread)}))
"""
# SIFA: two iterations. Adam makes a whole step of a gradient that is nothing but rounding, and deep layers of a few
# pixels amplify that: after three iterations any other order of a sum shows in the second decimal.
BATCHES = {
    "unet_batch_size": 4,
    "sifa_batch_size": 4,
    "unet_iterations": 10,
    "sifa_iterations": 2,
    "sifa_snapshots": 1,
}


def train(place, devices, overrides):
    place.mkdir()
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [json.dumps(overrides | {"devices": devices}), str(place)]
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=500)


def test_losses_are_those_of_one_device(tmp_path):
    overrides = {"cohorts": str(write_manifest(tmp_path, 32)), "image_size": 16, "sifa_pool_size": 3, **BATCHES}
    with ThreadPoolExecutor(2) as two:
        one, four = two.map(lambda devices: train(tmp_path / str(devices), devices, overrides), (1, 4))
    assert one.returncode == four.returncode == 0, (one.stderr + four.stderr)[-3000:]
    one, four = (json.loads(done.stdout) for done in (one, four))
    assert (one["spread"], four["spread"]) == ([1], [4])
    for name, rows in one["histories"].items():
        assert len(rows) == len(four["histories"][name]) == {"unet-covid": 10}.get(name, 2)
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
