"""Seconds per iteration of SIFA: plain Keras build, lusbook's sequential and simultaneous updates.

Beside each time stands the floor: its convolutions' operations over the rate of a matrix product.
"""

from contextlib import nullcontext
from typing import Annotated

import common
import flops
import keras
import numpy as np
import plain_sifa
import typer

from lusbook import backend, sifa  # noqa: F401  the backend starts quietly
from lusbook.settings import make_settings

SIZES, BATCH = (64, 96, 128), 4
VARIANTS = ("plain", "sequential", "simultaneous")


def make_call(variant, size, width, batch):
    """One iteration on a fixed batch, as a call without arguments."""
    a, b, stored_a, stored_b = (common.random_images(batch, size, seed) for seed in range(4))
    masks, use_stored = common.random_masks(batch, size), np.float32([0, 1])
    if variant == "plain":
        step = plain_sifa.make_step(plain_sifa.build_networks(size, width))
        arrays = (a, np.concatenate([1 - masks, masks], -1), b, stored_a, stored_b, use_stored)
        return lambda: step(*arrays)
    settings = make_settings("paper", image_size=size, sifa_width=width, sifa_updates=variant)
    step, _ = sifa.make_step(sifa.build_networks(size, width), settings)
    same = common.identity_transforms(batch)
    return lambda: step(a, masks, b, same, same, stored_a, stored_b, use_stored)


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    size: Annotated[list[int] | None, typer.Option(help="Side of the images, px; repeat for more.")] = None,
    rounds: common.Rounds = 5,
):
    """Measure the iterations of SIFA in turns."""
    size, width, batch, product = size or SIZES, 1.0, BATCH, 2048
    if quick:
        size, rounds, width, batch, product = (16,), 1, 0.0625, 2, 128
    operations, multiply = flops.matmul_rate(keras.ops.matmul, product)
    multiply()
    rows = []
    for side in size:
        forward = flops.sifa_flops(side, width)
        counts = {name: flops.iteration_flops(forward, flops.PASSES[name], batch) for name in VARIANTS}
        calls, first = {}, {}
        with common.without_augmentation(), common.untraced() if quick else nullcontext():
            for variant in VARIANTS:
                common.progress(f"{side} px: first call, {variant}")
                calls[variant] = make_call(variant, side, width, batch)
                first[variant] = [common.seconds(calls[variant])]
                rows.append(common.quantity(f"{side} px first call, {variant}", first[variant]))
            common.progress(f"{side} px: {rounds} rounds")
            times = common.interleaved({"product": multiply} | ({} if quick else calls), rounds)
        times |= first if quick else {}
        product_times = times.pop("product")
        rate = operations / np.median(product_times)
        for variant in VARIANTS:
            floor = counts[variant] / rate
            rows.append(common.quantity(f"{side} px iteration, {variant}", times[variant], flops=counts[variant]))
            rows.append(common.quantity(f"{side} px floor, {variant}", floor))
            rows.append(common.ratio(f"{side} px {variant} / floor", times[variant], [floor] * rounds))
        rates = np.divide(operations / 1e9, product_times)
        rows.append(common.quantity(f"{side} px matrix product", rates, "GFLOP/s"))
        plain, sequential, simultaneous = (times[variant] for variant in VARIANTS)
        rows.append(common.ratio(f"{side} px sequential / plain", sequential, plain, 0.7))
        target = 0.6 if side == 96 else None
        rows.append(common.ratio(f"{side} px simultaneous / sequential", simultaneous, sequential, target))
        del calls
        keras.backend.clear_session()
        common.report("sifa", rows, out, quick, quiet=True, passes=flops.PASSES)
    options = {"width": width, "batch": batch, "sizes": list(size), "augmentation": False}
    networks = {str(side): flops.sifa_flops(side, width) for side in size}
    common.report("sifa", rows, out, quick, options=options, passes=flops.PASSES, forward_flops_per_image=networks)


if __name__ == "__main__":
    typer.run(main)
