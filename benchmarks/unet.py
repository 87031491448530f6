"""A training step of the U-Net, lusbook's and PyTorch's: forward pass, loss, gradients, Adam; no augmentation."""

import common
import keras
import numpy as np
import torch_process
import typer

from lusbook import unet

SIZES, BATCH = (64, 128, 256), 16
LAYOUTS = ("default", "channels_last")


def make_call(size, width, batch):
    """One training step on a fixed batch, as a call without arguments; and the number of parameters."""
    model = unet.build_unet(width, 0.5)
    step, *_ = unet.make_step(model)
    arrays = (common.random_images(batch, size), common.random_masks(batch, size), common.identity_transforms(batch))
    return lambda: step(*arrays), sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    torch_python: torch_process.TorchPython = None,
    rounds: common.Rounds = 9,
):
    """Measure training steps in turns."""
    sizes, width, batch = SIZES, 1.0, BATCH
    if quick:
        sizes, rounds, width, batch = (16,), 2, 0.125, 2
    rows, more = [], {"options": {"width": width, "batch": batch, "dropout": 0.5, "augmentation": False}}
    with torch_process.Torch(torch_python) as torch:
        more["torch"] = torch.about if torch else None
        for size in sizes:
            common.progress(f"{size} px")
            with common.without_augmentation():
                call, parameters = make_call(size, width, batch)
                rows.append(common.quantity(f"{size} px first call, lusbook", common.seconds(call)))
            call()
            calls = {"lusbook": call}
            for layout in LAYOUTS if torch else ():
                command = {"task": "train", "size": size, "layout": layout, "batch": batch}
                command |= {"width": width, "dropout": 0.5}
                found = torch.ask(**command)["parameters"]
                assert found == parameters, f"parameters: {parameters} in Keras, {found} in PyTorch"
                calls[f"torch {layout}"] = (torch, command)
            times = common.interleaved(calls, rounds, timer=torch_process.timer)
            rows += [common.quantity(f"{size} px step, {name}", values) for name, values in times.items()]
            if torch:
                best = min((f"torch {layout}" for layout in LAYOUTS), key=lambda name: np.median(times[name]))
                rows.append(common.ratio(f"{size} px lusbook / {best}", times["lusbook"], times[best]))
                torch.ask(task="forget")
            del call, calls
            keras.backend.clear_session()
    ratios = [row for row in rows if "lusbook /" in row["name"]]
    if ratios:
        rows.append(common.geometric_mean("lusbook / torch, geometric mean", ratios, 0.75))
    else:
        print("No --torch-python: the comparison with PyTorch stays empty.")
    common.report("unet", rows, out, quick, parameters=parameters, **more)


if __name__ == "__main__":
    typer.run(main)
