"""Time of all metrics of all images of the paper: 1,303 masks of 256 x 256."""

import common
import numpy as np
import typer

from lusbook import metrics


def main(quick: common.Quick = False, out: common.Out = None, rounds: common.Rounds = 15):
    """Measure lusbook.metrics.per_image."""
    count, size, rounds = (20, 32, 2) if quick else (1303, 256, rounds)
    rng = np.random.default_rng(0)
    prediction, mask = (rng.random((2, count, size, size), dtype="float32") < 0.1) | np.zeros((2, 1, 1, 1), bool)
    calls = {"per_image": lambda: metrics.per_image(prediction, mask).to_numpy()}
    calls["per_image"]()
    times = common.interleaved(calls, rounds)["per_image"]
    rows = [common.quantity(f"per_image, {count} masks of {size} x {size}", times, target=1.0)]
    common.report("metrics", rows, out, quick)


if __name__ == "__main__":
    typer.run(main)
