"""U-Net and SIFA on an accelerator, whichever backend KERAS_BACKEND names: time, first call, memory, operations.

Each configuration runs in a process of its own, so that its peak of memory is its own and a failure stops no
other; what is measured is written at once.
"""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from typing import Annotated

import common
import numpy as np
import typer

SIZES, PRECISIONS, CALLS = (128, 256), ("float32", "bfloat16"), 20
METHODS = ("unet", "simultaneous", "sequential")


def make_call(method, settings):
    """One iteration on a fixed batch, as a call without arguments, and its operations."""
    import flops

    from lusbook import sifa, unet

    side = settings.image_size
    if method == "unet":
        size, width = settings.unet_batch_size, settings.unet_width
        step, *_ = unet.make_step(unet.build_unet(width, settings.unet_dropout, precision=settings.precision))
        arrays = common.random_images(size, side), common.random_masks(size, side), common.identity_transforms(size)
        return lambda: step(*arrays), flops.unet_step_flops(side, width, size)
    size, width = settings.sifa_batch_size, settings.sifa_width
    step, _ = sifa.make_step(sifa.build_networks(side, width, precision=settings.precision), settings)
    a, b, stored_a, stored_b = (common.random_images(size, side, seed) for seed in range(4))
    same = common.identity_transforms(size)
    arrays = a, common.random_masks(size, side), b, same, same, stored_a, stored_b, np.float32([0, 1])
    return lambda: step(*arrays), flops.iteration_flops(flops.sifa_flops(side, width), flops.PASSES[method], size)


def measure(method, size, precision, calls, quick):
    """Measure one configuration in this process.

    Returns
    -------
    rows : list of dict
    """
    from lusbook import backend
    from lusbook.estimate import device_memory
    from lusbook.settings import make_settings

    updates = {} if method == "unet" else {"sifa_updates": method}
    settings = make_settings("smoke" if quick else "paper", image_size=size, precision=precision, **updates)
    name = f"{method} {size} px {precision}"
    # Tiny steps are not worth a graph.
    eager = quick and backend.keras.backend.backend() == "tensorflow"
    with common.untraced() if eager else nullcontext():
        call, operations = make_call(method, settings)
        rows = [common.quantity(f"{name}, first call", common.seconds(call))]
        if not quick:
            call()
        times = [common.seconds(call) for _ in range(calls)]
    rows.append(common.quantity(f"{name}, iteration", times, flops=operations))
    rows.append(common.quantity(f"{name}, achieved", np.divide(operations / 1e12, times), "TFLOP/s"))
    peak = device_memory()
    if peak is not None:
        rows.append(common.quantity(f"{name}, peak memory", peak, "GiB"))
    return rows


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    calls: Annotated[int, typer.Option(help="Iterations of each configuration.")] = CALLS,
    limit: Annotated[int, typer.Option(help="Seconds that one configuration may take.")] = 600,
    method: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(METHODS)}; all by default.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="Side of the images, px; repeat for more.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="float32 or bfloat16; repeat for more.")] = None,
    one: Annotated[str, typer.Option("--one", hidden=True)] = "",
):
    """Measure all configurations, smallest first."""
    if one:
        from lusbook.errors import LusbookError

        try:
            answer = {"rows": measure(**json.loads(one)), "machine": common.machine()}
        except LusbookError as error:
            answer = {"skipped": str(error)}
        print(json.dumps(answer))
        return
    sizes, calls = ((16,), 1) if quick else (size or SIZES, calls)
    rows, skipped, computed = [], {}, None
    for side in sizes:
        for kind in method or (METHODS[:2] if quick else METHODS):
            for number in precision or PRECISIONS:
                name = f"{kind} {side} px {number}"
                common.progress(name)
                options = {"method": kind, "size": side, "precision": number, "calls": calls, "quick": quick}
                answer = configuration(json.dumps(options), limit)
                rows += answer.get("rows", [])
                computed = answer.get("machine", computed)
                if "skipped" in answer:
                    skipped[name] = answer["skipped"]
                    print(f"{name}: skipped: {answer['skipped']}")
                for row in answer.get("rows", []):
                    common.print_table([row])
                common.report("accelerator", rows, out, quick, quiet=True, skipped=skipped, computed_on=computed)
    print()
    if rows:
        common.report("accelerator", rows, out, quick, skipped=skipped, computed_on=computed)


def configuration(options, limit):
    """What one configuration's process answers; a failure is a reason to skip it."""
    path = os.pathsep.join([str(common.PROJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, __file__, "--one", options]
    try:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"took more than {limit} s"}
    if done.returncode:
        return {"skipped": f"failed, status {done.returncode}: {done.stderr.strip()[-1500:]}"}
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
