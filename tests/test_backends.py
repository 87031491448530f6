"""TensorFlow and JAX compute the same, and either is enough."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from lusbook.settings import PROJECT
from tests.helpers import write_manifest

missing = [name for name in ("tensorflow", "jax") if importlib.util.find_spec(name) is None]
on_jax = pytest.mark.skipif("jax" in missing, reason="JAX is not installed")


def python(*arguments, **environment):
    """What a fresh Python prints."""
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | environment
    # XLA's optimisation takes longer here than what it would save.
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What tests/parity.py prints on TensorFlow, and on JAX from the same weights."""
    if missing:
        pytest.skip(f"compares TensorFlow with JAX; not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("parity")
    printed = [python("-m", "tests.parity", folder, KERAS_BACKEND=name) for name in ("tensorflow", "jax")]
    one, other = (json.loads(text.splitlines()[-1]) for text in printed)
    assert (one["backend"], other["backend"]) == ("tensorflow", "jax")
    return one, other


@pytest.mark.slow
def test_every_loss_of_twenty_iterations_agrees(both):
    one, other = (side["losses"] for side in both)
    assert len(one) == len(other) == 20
    assert {name.split()[0] for name in one[0]} == {"unet", "sifa"}
    for iteration, (found, expected) in enumerate(zip(other, one, strict=True)):
        assert found == pytest.approx(expected, rel=1e-3), iteration


@pytest.mark.slow
def test_every_update_moves_the_weights_alike(both):
    one, other = (side["moves"] for side in both)
    for name in ("generator", "target", "segmentation", "decoder", "source", "feature", "feature_low"):
        differences = []
        for found, expected in zip(other, one, strict=True):
            assert np.linalg.norm(expected[name]) > 0
            differences.append(
                np.linalg.norm(np.subtract(found[name], expected[name])) / np.linalg.norm(expected[name])
            )
        # The median: now and then a ReLU stands so close to its kink that rounding decides.
        assert np.median(differences) <= 1e-4, name


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # is not found, and cannot be imported

from lusbook import make_settings, runs
runs.run("unet-cap", 0, make_settings("smoke", cohorts=sys.argv[1], unet_iterations=2), sys.argv[2])
"""


@on_jax
def test_without_tensorflow_the_package_trains_on_jax(tmp_path):
    python("-c", WITHOUT_TENSORFLOW, write_manifest(tmp_path), tmp_path / "results")
    (manifest,) = (tmp_path / "results").rglob("manifest.json")
    content = json.loads(manifest.read_text())
    assert content["backend"] == "jax"
    assert len((manifest.parent / "history.csv").read_text().splitlines()) == 3
