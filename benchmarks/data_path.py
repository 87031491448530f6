"""What loading and augmentation add to a training step: U-Net, and SIFA at the demo's width."""

from contextlib import nullcontext

import common
import keras
import numpy as np
import typer

from lusbook import sifa, trials, unet
from lusbook.augment import random_transforms
from lusbook.settings import make_settings
from lusbook.tables import load_published
from lusbook.training import batch_indices

SIZES, INNER = (64, 128), 5


def fold_images(cohort, fold=0):
    """Training images of a cohort when a fold is tested, as the paper counts them."""
    folds = load_published("folds")
    return int(folds.images[(folds.cohort == cohort) & (folds.fold != fold)].sum())


def unet_calls(settings, count):
    """A step with loading and augmentation, and one on a fixed batch without them."""
    size, side = settings.unet_batch_size, settings.image_size
    images, masks = common.random_images(count, side), common.random_masks(count, side)
    network = unet.make_step(unet.build_unet(settings.unet_width, settings.unet_dropout))[0]
    fixed = images[:size], masks[:size], common.identity_transforms(size)
    with common.without_augmentation():
        bare = unet.make_step(unet.build_unet(settings.unet_width, settings.unet_dropout))[0]
        common.seconds(lambda: bare(*fixed))
    turn = iter(range(10**9))

    def loading():  # as lusbook.trials.train_unet does
        iteration = next(turn)
        chosen = batch_indices(count, size, iteration, (0, 0, 0))
        rng = np.random.default_rng((0, 0, 1, iteration))
        return network(images[chosen], masks[chosen], random_transforms(rng, size, side, settings))

    return {"loading": loading, "fixed": lambda: bare(*fixed)}


def sifa_calls(settings, count_a, count_b):
    """The same two for SIFA, image pools included."""
    size, side = settings.sifa_batch_size, settings.image_size
    a, masks, b = (
        common.random_images(count_a, side),
        common.random_masks(count_a, side),
        common.random_images(count_b, side),
    )
    step = sifa.make_step(sifa.build_networks(side, settings.sifa_width), settings)[0]
    pools = [sifa.ImagePool(settings.sifa_pool_size, (size, side, side, 1)) for _ in "ab"]
    same = common.identity_transforms(size)
    fixed = a[:size], masks[:size], b[:size], same, same, a[:size], b[:size], np.float32([0, 0])
    with common.without_augmentation():
        bare = sifa.make_step(sifa.build_networks(side, settings.sifa_width), settings)[0]
        common.seconds(lambda: bare(*fixed))
    turn = iter(range(10**9))

    def loading():  # as lusbook.trials.adapt does
        iteration = next(turn)
        rng = np.random.default_rng((0, 0, 1, iteration))
        chosen_a = batch_indices(count_a, size, iteration, (0, 0, 2))
        chosen_b = batch_indices(count_b, size, iteration, (0, 0, 3))
        slots, used = zip(*(pool.draw(rng, iteration) for pool in pools), strict=True)
        stored = [pool.batches[slot or 0] for pool, slot in zip(pools, slots, strict=True)]
        transforms = [random_transforms(rng, size, side, settings) for _ in "ab"]
        arrays = a[chosen_a], masks[chosen_a], b[chosen_b], *transforms, *stored, np.array(used, "float32")
        losses = step(*arrays)
        for pool, slot, name in zip(pools, slots, ("fake_a", "fake_b"), strict=True):
            pool.put(slot, np.asarray(losses.pop(name)))
        return losses

    return {"loading": loading, "fixed": lambda: bare(*fixed)}


def main(quick: common.Quick = False, out: common.Out = None, rounds: common.Rounds = 9):
    """Measure steps with and without loading and augmentation in turns."""
    rows, sizes, inner, preset = [], SIZES, INNER, "demo"
    covid, cap = fold_images("covid"), fold_images("cap")
    if quick:
        sizes, inner, rounds, preset = (16,), 1, 1, "smoke"
    for method in ("unet", "sifa"):
        for size in sizes:
            options = {"image_size": size}
            if method == "unet" and not quick:  # the paper's network; SIFA's would hide the data path
                options |= {"unet_width": 1.0, "unet_dropout": 0.5}
            settings = make_settings(preset, **options)
            common.progress(f"{method}, {size} px")
            with common.untraced() if quick else nullcontext():
                calls = unet_calls(settings, covid) if method == "unet" else sifa_calls(settings, covid, cap)
                if not quick:
                    common.seconds(calls["loading"])
                times = common.interleaved(calls, rounds, inner)
            rows += [common.quantity(f"{method} {size} px step, {name}", values) for name, values in times.items()]
            target = 1.1 if method == "unet" else None
            rows.append(common.ratio(f"{method} {size} px loading / fixed", times["loading"], times["fixed"], target))
            del calls
            keras.backend.clear_session()
    machine = trials.machine()
    common.report("data_path", rows, out, quick, options={"preset": preset, "threads": machine["threads"]})


if __name__ == "__main__":
    typer.run(main)
