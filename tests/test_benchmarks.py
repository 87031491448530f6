"""Benchmarks run, write what the performance chapter reads, and count operations as the code has them."""

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections import Counter

import common
import flops
import keras
import numpy as np
import plain_sifa
import pytest

from lusbook import dose, growth, sifa, store, unet
from lusbook.settings import PROJECT, make_settings

EXPORT = ("onnxruntime", "openvino", "tf2onnx")
SIZE, WIDTH, BATCH = 16, 0.0625, 2

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="benchmarks of a CPU use TensorFlow")


def written(path, name):
    """Content of a benchmark's file, of the expected form."""
    content = json.loads(path.read_text())
    assert (content["benchmark"], content["quick"]) == (name, True)
    assert {"processor", "cores", "memory_gib", "versions", "python", "date"} <= set(content["machine"])
    for row in content["quantities"]:
        assert math.isfinite(row["median"]) and row["min"] <= row["median"] <= row["max"], row
        assert row["repeats"] >= 1 and isinstance(row["unit"], str)
        if "target" in row:
            assert row["bound"] in ("at most", "at least") and isinstance(row["met"], bool) and row["ratio"] > 0
    names = [row["name"] for row in content["quantities"]]
    assert len(names) == len(set(names))
    return content


@pytest.mark.parametrize("name", ["sifa", "unet", "data_path", "metrics", "phantom", "plain_sifa", "demo"])
def test_a_quick_run_writes_its_quantities(name, tmp_path):
    importlib.import_module(name).main(quick=True, out=tmp_path / f"{name}.json")
    content = written(tmp_path / f"{name}.json", name)
    if name == "plain_sifa":
        differences = {row["name"].split(", ")[1]: row["median"] for row in content["quantities"]}
        assert {"cycle", "segmentation", "fool_source", "source", "feature_low", "fake_a"} <= set(differences)
        del differences["changes of weights"], differences["moving variances"]  # of few digits; biased in Keras
        assert max(differences.values()) < 1e-3


def test_inference_of_exported_networks(tmp_path):
    missing = [package for package in EXPORT if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"not installed (extra 'export'): {', '.join(missing)}")
    # In a process of its own: after OpenVINO has compiled a network, a signal that Python handles kills the process if
    # pytest's faulthandler is on.
    script = (
        "import sys, inference; "
        f"inference.main(quick=True, out={str(tmp_path / 'inference.json')!r}); "
        "assert sys.modules['openvino_telemetry'] is None"  # nothing is reported
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = written(tmp_path / "inference.json", "inference")
    assert sum("difference" in row["name"] for row in content["quantities"]) == 4


def test_scaling_measures_each_part_at_two_numbers_of_images(tmp_path):
    parts = ["phantom", "metrics", "tables", "figure"]
    importlib.import_module("scaling").main(quick=True, out=tmp_path / "scaling.json", part=parts)
    found = growth.measured_parts(written(tmp_path / "scaling.json", "scaling"))
    assert found["part"].tolist() == [name for name in [*parts, "held"] for _ in range(2)]
    assert (found["seconds"].notna() == (found["part"] != "held")).all() and (found["memory"] > 0).all()
    assert (found["images"] <= found["asked"]).all()


def test_a_part_in_a_process_of_its_own():
    answer = importlib.import_module("scaling").alone("metrics", 3, 1)
    assert answer["images"] == 3 and 0 < answer["seconds"] and 0 < answer["peak"] < 4


def test_a_stub_puts_runs_there_that_are_read_as_whole(tmp_path):
    """A study of copied runs, without Snakemake: the group's process, then what reads all of it."""
    many, settings, design = importlib.import_module("many_runs"), make_settings("smoke"), (2, 1)
    grid = dose.folder_of(settings, tmp_path, *design)
    groups = many.make_runs(settings, tmp_path / "made", *design)
    many.put_stub(tmp_path / "stub", groups, tmp_path / "made" / dose.FOLDER, grid)
    for group in groups:
        subprocess.run([tmp_path / "stub" / "lusbook", "dose-response", group], check=True)
    parts = [name for names in groups.values() for name in names]
    assert sorted(path.name for path in grid.iterdir()) == sorted(parts)
    assert [store.damage(grid / name) for name in parts] == [""] * len(parts)
    for call in many.reading(settings, tmp_path, *design).values():
        call()
    assert len(dose.gather(settings, tmp_path, *design, compute=False)) == 2 * len(parts)


def test_accelerator_measures_and_skips(tmp_path, monkeypatch):
    accelerator = importlib.import_module("accelerator")

    def here(options, limit):  # in this process: a start of TensorFlow for each would take a minute
        options = json.loads(options)
        if options["precision"] == "bfloat16" and options["method"] == "unet":
            return {"skipped": "no such kernel"}
        return {"rows": accelerator.measure(**options), "machine": common.machine()}

    monkeypatch.setattr(accelerator, "configuration", here)
    accelerator.main(quick=True, out=tmp_path / "accelerator.json", method=["unet", "simultaneous"])
    content = written(tmp_path / "accelerator.json", "accelerator")
    assert content["skipped"] == {"unet 16 px bfloat16": "no such kernel"}
    iterations = [row for row in content["quantities"] if row["name"].endswith("iteration")]
    assert len(iterations) == 3 and all(row["flops"] > 0 for row in iterations)


def test_a_configuration_that_fails_is_skipped():
    answer = importlib.import_module("accelerator").configuration('{"method": "none"}', 60)
    assert answer["skipped"].startswith("failed")


# ---------------------------------------------------------------------------------------------
# Operations


def counted(call, *arrays):
    """Operations of the convolutions that a step computes, by kind, from its graph without what is pruned."""
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import func_graph_from_py_func

    with common.without_augmentation(), common.untraced():  # inner functions are traced in line
        graph = func_graph_from_py_func("step", call, [tf.TensorSpec(x.shape, x.dtype) for x in arrays], {})
    waiting = [x.op for x in tf.nest.flatten(graph.structured_outputs)] + list(graph.control_outputs)
    needed = set()
    while waiting:
        operation = waiting.pop()
        if operation not in needed:
            needed.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    counts = Counter()
    for operation in needed:
        if operation.type == "Conv2D":
            pixels, kernel = operation.outputs[0].shape[:3], operation.inputs[1].shape
        elif operation.type == "Conv2DBackpropInput":
            pixels, kernel = operation.inputs[2].shape[:3], operation.inputs[1].shape
        elif operation.type == "Conv2DBackpropFilter":
            pixels, kernel = operation.inputs[2].shape[:3], operation.outputs[0].shape
        else:
            continue
        backward = "inputs" if "gradient_tape" in operation.name else "forward"
        kind = "filters" if operation.type == "Conv2DBackpropFilter" else backward
        counts[kind] += 2 * math.prod(pixels) * math.prod(kernel)
    return [counts[kind] for kind in ("forward", "inputs", "filters")]


@pytest.mark.parametrize("variant", flops.PASSES)
def test_passes_are_those_of_the_code(variant, monkeypatch):
    def descend(self, gradients, variables):  # Adam's many operations take long to trace
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(gradient)

    monkeypatch.setattr(keras.optimizers.Adam, "apply", descend)
    images, masks = np.zeros((BATCH, SIZE, SIZE, 1), "float32"), np.zeros((BATCH, SIZE, SIZE, 2), "float32")
    use_stored, same = np.zeros(2, "float32"), common.identity_transforms(BATCH)
    if variant == "plain":
        call = plain_sifa.make_step(plain_sifa.build_networks(SIZE, WIDTH))
        arrays = images, masks, images, images, images, use_stored
    else:
        settings = make_settings("smoke", image_size=SIZE, sifa_width=WIDTH, sifa_updates=variant)
        call, _ = sifa.make_step(sifa.build_networks(SIZE, WIDTH), settings)
        arrays = images, masks[..., :1], images, same, same, images, images, use_stored
    expected = np.multiply(flops.by_kind(flops.sifa_flops(SIZE, WIDTH), flops.PASSES[variant]), BATCH)
    assert counted(call, *arrays) == expected.tolist()


def test_operations_of_a_step_of_the_unet():
    with common.without_augmentation():
        call, *_ = unet.make_step(unet.build_unet(0.25, 0.5))
    arrays = common.random_images(BATCH, 32), common.random_masks(BATCH, 32), common.identity_transforms(BATCH)
    assert sum(counted(call, *arrays)) == flops.unet_step_flops(32, 0.25, BATCH)


def test_studies_under_kills_are_compared_and_what_is_computed_again_is_counted(tmp_path):
    import random_kills

    for root in ("alone", "killed"):
        folder = tmp_path / root / "smoke" / "unet-cap" / "fold-0"
        folder.mkdir(parents=True)
        np.savez(folder / "weights.npz", np.arange(3))
        for name in ("per_image.csv", "manifest.json"):
            (folder / name).write_text("dice\n0.5\n")
    assert random_kills.compare(tmp_path / "killed", tmp_path / "alone") == (2, 2)
    np.savez(folder / "weights.npz", np.arange(1, 4))
    assert random_kills.compare(tmp_path / "killed", tmp_path / "alone") == (2, 1)
    finished = {}
    assert [random_kills.watch(finished, tmp_path / "killed") for _ in range(2)] == [0, 0]
    (folder / "manifest.json").write_text("again")
    assert [random_kills.watch(finished, tmp_path / "killed") for _ in range(2)] == [1, 0]
