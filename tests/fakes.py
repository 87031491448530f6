"""Networks that only count and write down what they are given, and cohorts whose every image says which one it is.

An image's first three pixels are its cohort, patient and number; its mask and its exact mask have an area that no other
image's have. A fake network finds more pixels in an image with each iteration that it was trained for, a number that
tells image, route and iterations apart: so a table of counts says which weights saw which image how. It refuses to find
anything with statistics that were not recomputed for its weights.
"""

import zlib
from types import SimpleNamespace

import keras
import numpy as np

from lusbook import sifa, training, trials, unet
from lusbook.cohort import Cohort
from lusbook.experiments import EXPERIMENTS
from lusbook.settings import make_settings

SIDE = 32
THRESHOLD = 0.6
COHORTS = {"covid": 40, "cap": 80, "covid_more": 120, "cap_more": 160}  # by name: the first pixel
FIRST = {"covid": 0, "cap": 110, "covid_more": 160, "cap_more": 190}  # number of the first image, of all cohorts'
PATIENTS = {  # folds; images of each
    "covid": ((0, 1, 2, 0, 1, 2, 0, 1, 2), 12),
    "cap": ((2, 0, 1, 2, 0, 1), 8),
    "covid_more": ((0, 0, 0, 0, 0), 5),
    "cap_more": ((0, 0, 0, 0), 4),
}
SETTINGS = {  # on the preset smoke
    "image_size": SIDE,
    "threshold": THRESHOLD,
    "unet_batch_size": 8,
    "unet_iterations": None,  # epochs count
    "unet_epochs": 1,
    "unet_learning_rate": 0.25,
    "unet_snapshots": 3,
    "fine_tune_iterations": None,
    "fine_tune_epochs": 2,
    "fine_tune_learning_rate": 0.0625,
    "sifa_batch_size": 8,
    "sifa_iterations": 20,
    "sifa_snapshots": 3,  # after iterations 7, 14 and 20
    "sifa_pool_size": 3,
    "sifa_average_decay": 0.999,
}
SNAPSHOTS = [7, 14, 20]
AVERAGE = 18  # iterations that the average is worth: 0.9 * 10 after 10, then 2 of 11 parts of that and 9 of 20
NETWORKS = ("generator", "encoder", "decoder", "segmenter", "target")  # what is kept, and a discriminator
GIVEN = ("images", "masks", "target", "transforms", "target_transforms", "stored_a", "stored_b", "use_stored")
SHOWN = {("source", "fake"): 10, ("source", "cycle"): 60, ("target", "fake"): 110, ("target", "cycle"): 160}


# ---------------------------------------------------------------------------------------------
# Cohorts


def make_cohort(name):
    """A cohort of which no two images, masks or exact masks are the same; patients take turns."""
    folds, each = PATIENTS[name]
    index = np.arange(len(folds) * each)
    patients = index % len(folds)
    images = np.full((len(index), SIDE, SIDE), 120, np.uint8)
    images[:, -1] = 0
    images[:, 0, :3] = np.stack([np.full(len(index), COHORTS[name]), patients, index], axis=1)
    names = [f"{name}-{patient}" for patient in patients]
    codes = codes_of(names_of(images))
    return Cohort(
        name, images, mask_of(410 + codes), np.array(names), np.array(folds)[patients], mask_of(373 + codes), "digest"
    )


def make_cohorts():
    return {name: make_cohort(name) for name in ("covid", "cap")}


def make_more():
    """Patients who are only tested."""
    return {name: make_cohort(f"{name}_more") for name in ("covid", "cap")}


def mask_of(areas):
    """Masks of the first pixels, row by row, as many as wanted."""
    return (np.arange(SIDE * SIDE) < np.asarray(areas)[:, None]).reshape(-1, SIDE, SIDE)


def names_of(images):
    """Names of images, <cohort>-<patient>-<number>, from their pixels: uint8, or as networks take them."""
    images = np.asarray(images)
    if images.ndim == 4:
        images = np.round((images[..., 0] / 0.9 + 1) * 127.5).astype(int)
    cohorts = {pixel: name for name, pixel in COHORTS.items()}
    return [f"{cohorts[first]}-{patient}-{number}" for first, patient, number in images[:, 0, :3].tolist()]


def codes_of(names):
    """Numbers of images by name, of both cohorts together."""
    parts = [name.split("-") for name in names]
    return np.array([int(number) + FIRST[cohort] for cohort, _, number in parts])


def labelled(masks):
    """Names' numbers of the masks that a network was given, from their areas."""
    return np.asarray(masks).reshape(len(masks), -1).sum(axis=1) - 410


# ---------------------------------------------------------------------------------------------
# Networks


def probabilities(names, iterations, route="direct"):
    """What a network of so many iterations says of images, shape (n, SIDE, SIDE)."""
    size = 400 + codes_of(names) + 8 * iterations + (50 + 2 * iterations if route == "translated" else 0)
    ramp = 0.5 + (size[:, None] - np.arange(SIDE * SIDE) - 0.5) / 1024
    return np.clip(ramp, 0, 1).reshape(-1, SIDE, SIDE).astype("float32")


def found(names, iterations, route="direct", threshold=THRESHOLD):
    """Pixels that a network of so many iterations finds in each image."""
    return np.count_nonzero(probabilities(names, iterations, route) > threshold, axis=(1, 2))


def dice(one, other):
    """Dice of masks of the first pixels, from their areas."""
    return 2 * np.minimum(one, other) / (one + other)


class Model:
    """A network of a variable that no other has, of one that counts its iterations, and perhaps of statistics."""

    def __init__(self, number, statistics=False):
        self.constant = keras.Variable(np.arange(number + 2, dtype="float32"))
        self.iterations = keras.Variable(0.0)
        self.variables = [self.constant, self.iterations]
        self.trainable_variables = self.variables[:]
        self.statistics = keras.Variable(np.zeros((1, 1), "float32")) if statistics else None
        self.variables += [self.statistics] if statistics else []

    def count(self):
        return float(self.iterations.value)


class Fakes:
    """Fake networks in place of the real ones; ``run`` trains and tests them."""

    def __init__(self, patch, folder):
        self.folder, self.runs, self.built, self.kept = folder, 0, [], {}
        self.start, self.steps = [], []  # of the last run: the state before its first step, and what steps were given
        self.refreshed = []  # and what statistics were recomputed from
        patch.setattr(unet, "build_unet", self.build_unet)
        patch.setattr(unet, "make_step", self.unet_step)
        patch.setattr(unet, "make_predict", lambda model: self.predict("direct", model, model))
        for name in vars(sifa):  # what else there is to compile does nothing here
            if name.startswith("make_"):
                patch.setattr(sifa, name, lambda *_, **__: lambda *_, **__: {})
        patch.setattr(sifa, "build_networks", self.build_networks)
        patch.setattr(sifa, "make_step", self.sifa_step)
        patch.setattr(sifa, "make_predict", self.sifa_predict)
        patch.setattr(sifa, "make_translate", self.sifa_translate)
        patch.setattr(trials, "refresh_statistics", self.refresh)

    def run(self, name, fold=0, *, cohorts=None, parent=None, more=None, **changed):
        """Train and test an experiment; returns what its step was given, beside the outcome."""
        self.runs += 1
        self.start, self.steps, self.refreshed = [], [], []
        folder = self.folder / f"run-{self.runs}"
        if EXPERIMENTS[name].parent and parent is None:
            parent = self.parent(0)
        trial = (EXPERIMENTS[name], fold, settings(**changed), cohorts or make_cohorts(), parent, name, more)
        outcome = trials.run_trial(*trial, folder=folder, key="")
        given = {"start": self.start, "steps": self.steps, "refreshed": self.refreshed}
        return SimpleNamespace(**outcome, **given, fold=fold, folder=folder)

    def once(self, name, fold=0, **changed):
        """A run that several tests look at, computed once."""
        key = (name, fold, settings(**changed))
        if key not in self.kept:
            self.kept[key] = self.run(name, fold, **changed)
        return self.kept[key]

    def parent(self, iterations):
        """Weights of a U-Net that was trained for some iterations, as a run keeps them."""
        path = self.folder / f"parent-{iterations}.npz"
        np.savez(path, np.full(2, 7, "float32"), np.float32(iterations))
        return path

    def build_unet(self, *options, **more):
        self.built.append((*options, *more.values()))
        return Model(0)

    def build_networks(self, *options, **more):
        self.built.append((*options, *more.values()))
        return SimpleNamespace(**{name: Model(n, name == "encoder") for n, name in enumerate(NETWORKS)})

    def unet_step(self, model):
        optimizer = training.Adam([model.constant])
        state = [*model.variables, *optimizer.variables]
        names = ("images", "masks", "transforms")

        def step(*arrays):
            self.write_down(names, arrays, state, rate=float(optimizer.rate.value))
            train([model], optimizer)
            return {"loss": 0.5}

        return step, optimizer, state

    def sifa_step(self, networks, settings):
        models = list(vars(networks).values())
        optimizer = training.Adam([models[0].constant])
        state = [*(v for model in models for v in model.variables), *optimizer.variables]

        def step(*arrays):
            count = len(self.steps)
            generated = [np.full(arrays[0].shape, count + part, "float32") for part in (0.25, 0.75)]
            self.write_down(GIVEN, arrays, state)
            train(models, optimizer)
            return {"loss": 0.5, "fake_a": generated[0], "fake_b": generated[1]}

        return step, state

    def write_down(self, names, arrays, state, **more):
        given = {name: np.array(array) for name, array in zip(names, arrays, strict=True)}
        self.start = self.start or [np.asarray(variable.value).copy() for variable in state]
        self.steps.append(SimpleNamespace(given=given, **given, **more))

    def refresh(self, network, a, b):
        """Statistics are those of as many iterations as the weights."""
        encoder = network.encoder
        encoder.statistics.assign([[encoder.count()]])
        given = {"source": np.array(a), "target": np.array(b)}
        iterations = [encoder.count(), network.generator.count()]
        self.refreshed.append(SimpleNamespace(given=given, iterations=iterations, steps=len(self.steps)))

    def predict(self, route, *models):
        """Inference that finds what a network of as many iterations finds, if all its parts have as many."""

        def predict(images):
            for model in models:
                if model.statistics is not None:
                    assert np.asarray(model.statistics.value).item() == model.count(), "statistics of other weights"
            return probabilities(names_of(images), np.mean([model.count() for model in models]), route)

        return predict

    def sifa_predict(self, networks):
        n = networks
        return (
            self.predict("direct", n.encoder, n.segmenter),
            self.predict("translated", n.generator, n.encoder, n.segmenter),
        )

    def sifa_translate(self, networks):
        """Translations that tell what they are and after how many iterations, and keep the pixels that name them."""

        def translate(images):
            count = (networks.generator.count() + networks.decoder.count()) / 2
            made = {"source": {}, "target": {}}
            for (step, key), number in SHOWN.items():
                made[step][key] = np.full(images.shape, (number + count) / 255 * 1.8 - 0.9, "float32")
                made[step][key][:, 0] = images[:, 0]
            return made

        return translate


def train(models, optimizer):
    for model in models:
        model.iterations.assign_add(1.0)
    optimizer.step.assign_add(1.0)


def settings(**changed):
    return make_settings("smoke", **(SETTINGS | changed)).model_copy(
        update={name: None for name in ("unet_iterations", "fine_tune_iterations") if name not in changed}
    )


def seen(run, key="images"):
    """Names of the images that a run's step was given, one list an iteration."""
    return [names_of(step.given[key]) for step in run.steps]


def digest(run):
    """A number of everything that a run's steps and statistics were given, to compare runs by."""
    arrays = [*run.start, *(array for step in [*run.steps, *run.refreshed] for array in step.given.values())]
    return zlib.crc32(b"".join(array.tobytes() for array in arrays))
