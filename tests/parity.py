"""Twenty iterations of U-Net and SIFA, run once per backend: ``python -m tests.parity FOLDER``.

The first process leaves in the folder the weights that both start from and SIFA's whole state before every iteration;
the second takes them from there. Prints every loss, and how far every iteration moved each group of weights, as JSON.

The U-Net runs freely. SIFA is put on the same state before every iteration: at the published learning rates its first
iterations amplify a difference of rounding a hundredfold each, between two backends as between two processors, so that
twenty free iterations would compare nothing but chaos. The first process takes three iterations before these twenty:
Adam's first step is the learning rate times the sign of the gradient, also where the gradient is only rounding. From
such a start the losses that follow an update within the first iteration differed by up to 3e-3, and the moves entirely.
"""

import json
import sys
from pathlib import Path

import numpy as np

from lusbook import backend, sifa, unet
from lusbook.augment import random_transforms
from lusbook.settings import make_settings
from lusbook.training import reset

ITERATIONS, WARM_UP, SIZE, BATCH = 20, 3, 16, 4


def images(rng):
    """A batch of noise with a bright band, and the band's mask."""
    masks = np.zeros((BATCH, SIZE, SIZE, 1), "float32")
    for mask in masks:
        left = int(rng.integers(2, SIZE - 5))
        mask[:, left : left + 4] = 1
    return np.clip(masks + rng.normal(-0.4, 0.2, masks.shape), -0.9, 0.9).astype("float32"), masks


def share(path, variables):
    """Write the variables, or take them from what the other process wrote."""
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            reset(variables, [stored[f"arr_{i}"] for i in range(len(variables))])
    else:
        np.savez(path, *(np.asarray(variable.value) for variable in variables))


def flat(groups):
    """Weights of each update in one array; biases that a normalisation removes have only rounding for a gradient."""
    kept = {name: [v for v in group if "bias" not in v.path] for name, group in groups.items()}
    return {name: np.concatenate([np.ravel(v.value) for v in group]) for name, group in kept.items()}


def main(folder):
    settings = make_settings("smoke", image_size=SIZE)
    settings = settings.model_copy(update={"sifa_updates": "sequential"})
    rng = np.random.default_rng(0)
    model = unet.build_unet(0.25, dropout=0.0)
    unet_step, optimizer, _ = unet.make_step(model)
    optimizer.rate.assign(0.0002)
    share(folder / "unet.npz", [v for v in model.variables if v.dtype == "float32"])
    networks = sifa.build_networks(SIZE, 0.0625)
    step, state = sifa.make_step(networks, settings)
    groups, losses, moves = sifa.trainable(networks), [], []

    def arrays():
        (a, masks), (b, _) = images(rng), images(rng)
        one, other = (random_transforms(rng, BATCH, SIZE, settings) for _ in "ab")
        stored = rng.uniform(-0.9, 0.9, (2, *a.shape)).astype("float32")
        return a, masks, b, one, other, *stored, (rng.random(2) < 0.5).astype("float32")

    for _ in range(WARM_UP):
        taken = arrays()
        if not (folder / "sifa-0.npz").exists():
            step(*taken)
    for iteration in range(ITERATIONS):
        share(folder / f"sifa-{iteration}.npz", state)
        before, (a, masks, *rest) = flat(groups), arrays()
        found = {f"unet {name}": value for name, value in unet_step(a, masks, rest[1]).items()}
        results = step(a, masks, *rest)
        found |= {f"sifa {name}": value for name, value in results.items() if not name.startswith("fake")}
        losses.append({name: float(value) for name, value in found.items()})
        moves.append({name: (after - before[name]).tolist()[::50] for name, after in flat(groups).items()})
    print(json.dumps({"backend": backend.keras.backend.backend(), "losses": losses, "moves": moves}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
