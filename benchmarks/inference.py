"""Frames per second of the U-Net: Keras, and exported to ONNX Runtime and OpenVINO in float32; PyTorch beside them."""

import os
import sys
import tempfile
from pathlib import Path

import common
import keras
import numpy as np
import torch_process
import typer

from lusbook import unet
from lusbook.norms import BatchNorm

SIZE, BATCHES, INNER, TOLERANCE = 256, (1, 16), 5, 1e-4

# OpenVINO reports its use over the network when it is imported, unless this package is missing.
sys.modules["openvino_telemetry"] = None


def shaken(model, seed=0):
    """Give batch normalisations statistics and scales that do something: fresh ones nearly cancel."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            count = layer.scale.shape
            layer.scale.assign(rng.uniform(0.5, 1.5, count))
            layer.centre.assign(rng.normal(0, 0.2, count))
            layer.moving.assign(np.stack([rng.normal(0, 0.2, count), rng.uniform(0.5, 2.0, count)]))
    return model


def with_probabilities(model, size):
    """The model with the sigmoid that turns its logits into probabilities, for a fixed image size."""
    images = keras.Input((size, size, 1), name="images")
    return keras.Model(images, keras.ops.sigmoid(model(images)[0]))


def onnx_call(path, images):
    """ONNX Runtime on one batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})[0][..., 0]


def openvino_call(path, images):
    """OpenVINO on one batch; left to itself it takes bfloat16 where the processor has it."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(images.shape))
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    return lambda: request.infer([images])[0][..., 0]


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    torch_python: torch_process.TorchPython = None,
    rounds: common.Rounds = 9,
):
    """Measure inference in turns, and check that exported networks give the same probabilities."""
    size, batches, inner, width = (32, (1, 2), 2, 0.125) if quick else (SIZE, BATCHES, INNER, 1.0)
    rounds = 2 if quick else rounds
    model = shaken(unet.build_unet(width, 0.5))
    predict = unet.make_predict(model)
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder, torch_process.Torch(torch_python) as torch:
        onnx, openvino = str(Path(folder) / "unet.onnx"), str(Path(folder) / "unet.xml")
        exported = with_probabilities(model, size)
        exported(common.random_images(1, size))  # Keras exports only what was called
        exported.export(onnx, format="onnx", verbose=False)
        exported.export(openvino, format="openvino", verbose=False)
        rows.append(common.quantity("exported file, onnx", os.path.getsize(onnx) / 2**20, "MiB"))
        for batch in batches:
            common.progress(f"batch {batch}")
            images = common.random_images(batch, size)
            calls = {
                "keras": lambda images=images: predict(images),
                "onnxruntime": onnx_call(onnx, images),
                "openvino": openvino_call(openvino, images),
            }
            expected = np.asarray(calls["keras"]())
            for name in ("onnxruntime", "openvino"):
                difference = float(np.abs(np.asarray(calls[name]()) - expected).max())
                worst = max(worst, difference)
                row = common.quantity(f"batch {batch} difference, {name}", difference, "", TOLERANCE)
                rows.append(row)
            spread = float(expected.max() - expected.min())
            rows.append(common.quantity(f"batch {batch} range of probabilities", spread, ""))
            for layout in ("default", "channels_last") if torch else ():
                command = {"task": "predict", "size": size, "layout": layout, "batch": batch}
                command |= {"width": width, "dropout": 0.5}
                torch.ask(**command)
                calls[f"torch {layout}"] = (torch, command)
            times = common.interleaved(calls, rounds, inner if batch == 1 else 1, torch_process.timer)
            for name, values in times.items():
                goal = {"target": 30, "bound": "at least"} if batch == 1 and name in ("onnxruntime", "openvino") else {}
                rows.append(common.quantity(f"batch {batch} {name}", np.divide(batch, values), "frames/s", **goal))
        about = torch.about if torch else None
    if about is None:
        print("No --torch-python: PyTorch's rows are left out.")
    common.report("inference", rows, out, quick, torch=about, options={"size": size, "width": width})
    if worst > TOLERANCE:
        raise SystemExit(f"exported probabilities differ by {worst:.1e}, more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    typer.run(main)
