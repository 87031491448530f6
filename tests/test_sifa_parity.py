"""SIFA held against the authors' graph, by numbers that it gave at stated weights and images.

``sifa_parity.json`` holds what their implementation (cchen-cc/SIFA at be5b792, run under TensorFlow 1's interface)
computed from the inputs that are made here: outputs, losses, gradients and one iteration; none of its code is here.
Its dropout keeps all there, as ours does, and its pools give what they are fed. The numbers are there twice: with the
authors' resize of the logits, and with half-pixel centres, which lusbook has. Both are met, once segmenters resize
alike.

Gradients jump where what enters a ReLU, or an error of a cycle, passes 0. Here some stand so close to it that 1e-6 on
the images moves norms of single kernels by 2 % (in float64), and that the rounding of single precision, which differs
between processors, moves them by 0.5 %. So gradients and the iteration are compared in float64, where they agree to
the digits of the file; in float32, as trainings compute, gradients have bounds for such jumps.
"""

import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers, ops

from lusbook import backend, sifa, training
from lusbook.norms import BatchNorm, InstanceNorm
from lusbook.settings import make_settings
from tests.helpers import untraced

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="on JAX this takes minutes, and Keras brings float64 down; test_backends.py holds JAX to TensorFlow",
)

THEIRS = json.loads(Path(__file__).with_name("sifa_parity.json").read_text())
SIZE, WIDTH, BATCH, RATE = 32, 0.125, 2, 0.05
# Six updates share one Adam there: the powers of its betas count updates, not iterations. E and C have their own.
COUNTS = {"generator": 1, "target": 2, "segmentation": 1, "decoder": 3, "source": 4, "feature": 5, "feature_low": 6}
# Their moves are in single precision. Found: norms within 2e-4; eight weights 8e-4, decoder 6e-3, segmentation 7e-3.
MOVES = dict.fromkeys(COUNTS, 1e-3) | {"decoder": 1e-2, "segmentation": 2e-2}


# ---------------------------------------------------------------------------------------------
# Inputs


def uniform(name, shape):
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)


def parameters(network):
    """Variables of a network with the names that the numbers have: ``network/i/what``, each kind counted for itself."""
    counts, found = {}, []
    for layer in network.layers:
        kind = type(layer) if isinstance(layer, layers.Conv2D | layers.Conv2DTranspose) else "norm"
        if kind == "norm" and not isinstance(layer, BatchNorm | InstanceNorm):
            continue
        i = counts[kind] = counts.get(kind, -1) + 1
        names = {"scale": "gamma", "centre": "beta", "moving": "moving"}
        if kind != "norm":
            names = {"kernel": "kernel", "bias": "bias"}
            if kind is layers.Conv2DTranspose:
                names = {"kernel": "transposed", "bias": "transposed_bias"}
        found += [(f"{network.name}/{i}/{names[v.name]}", v) for v in layer.variables]
    return found


def value_of(name, shape):
    what = name.split("/")[-1]
    if what == "moving":
        mean, variance = (uniform(f"{name}_{kind}", shape[1:]) for kind in ("mean", "variance"))
        return np.stack([0.1 * mean, 1 + 0.5 * variance])
    u = uniform(name, shape)
    if what in ("kernel", "transposed"):
        return u * np.sqrt(3 / (shape[0] * shape[1] * shape[2 if what == "kernel" else 3]))
    if what == "bias" and name.startswith("encoder"):
        return 0 * u  # the authors create biases of the dilated convolutions and never add them
    return {"bias": 0.1 * u, "transposed_bias": 0.1 * u, "gamma": 0.3 + 0.1 * u, "beta": 0.2 * u}[what]


def image(seed):
    r = np.random.RandomState(seed)
    low = r.uniform(-0.9, 0.9, (BATCH, 4, 4))
    x = low.repeat(8, axis=1).repeat(8, axis=2)[..., None] + 0.1 * r.uniform(-1, 1, (BATCH, SIZE, SIZE, 1))
    return np.clip(x, -0.9, 0.9).astype("float32")


A, B, POOL_A, POOL_B = map(image, range(4))
MASK = np.zeros((BATCH, SIZE, SIZE, 1), "float32")
MASK[0, :, 4:10], MASK[1, :, 8:14] = 1, 1
ONE_HOT = np.concatenate([1 - MASK, MASK], axis=-1)


def legacy(segmenter):
    """A segmenter's convolution, and the authors' resize: cell k lies at pixel 8 k, and nothing beyond the last one."""
    at, cells = np.arange(SIZE) / 8, np.arange(SIZE // 8)
    matrix = np.maximum(0, 1 - abs(np.minimum(at, cells[-1])[:, None] - cells)).astype("float32")  # (pixels, cells)
    (layer,) = [layer for layer in segmenter.layers if isinstance(layer, layers.Conv2D)]
    resized = ops.einsum("ik,nklc->nilc", matrix, layer.output)
    resized = ops.einsum("jl,nilc->nijc", matrix, resized)
    return keras.Model(segmenter.inputs, resized, name=segmenter.name)


def double(network):
    """A network in float64."""

    def clone(layer):
        precision = {"dtype": "float64"} if isinstance(layer, layers.Layer) else {}  # additions, tanh: no layers
        return type(layer).from_config(layer.get_config() | precision)

    keras.config.set_floatx("float64")
    try:
        return keras.models.clone_model(network, clone_function=clone)
    finally:
        keras.config.set_floatx("float32")


def plain_batch_norm(x, scale, centre, epsilon):
    """TensorFlow's fused kernel has no float64."""
    mean, variance = ops.moments(x, (0, 1, 2))
    count = x.shape[0] * x.shape[1] * x.shape[2]
    return (x - mean) * ops.rsqrt(variance + epsilon) * scale + centre, mean, variance * (count / (count - 1))


def plain_instance_norm(x, scale, centre, epsilon):
    mean, variance = ops.moments(x, (1, 2), keepdims=True)
    return (x - mean) * ops.rsqrt(variance + epsilon) * scale + centre


class Adam(training.Adam):
    """lusbook's, in float64; every one that was made is kept."""

    made = []

    def __init__(self, parameters, *options):
        super().__init__(parameters, *options)

        def exact(variable):
            return keras.Variable(np.asarray(variable.value), dtype="float64", trainable=False)

        self.first, self.second = ([exact(v) for v in moments] for moments in (self.first, self.second))
        self.step, self.rate = exact(self.step), exact(self.rate)
        self.made.append(self)


def on(*kinds):
    """Resize and precision that a test is for."""
    return pytest.mark.parametrize("compared", kinds, indirect=True)


EVERY = ("half_pixel float32", "half_pixel float64", "legacy float64")


@pytest.fixture(scope="module")
def compared(request):
    """Ours at their weights, and what theirs gave."""
    resize, precision = request.param.split()
    networks = sifa.build_networks(SIZE, WIDTH)
    if resize == "legacy":
        networks.segmenter, networks.segmenter_low = legacy(networks.segmenter), legacy(networks.segmenter_low)
    if precision == "float64":
        networks = SimpleNamespace(**{name: double(network) for name, network in vars(networks).items()})
    named = [pair for network in vars(networks).values() for pair in parameters(network)]
    assert len(dict(named)) == sum(len(network.variables) for network in vars(networks).values())
    start = [value_of(name, variable.shape).astype("float32") for name, variable in named]
    training.reset([variable for _, variable in named], start)
    images = {"a": A, "b": B, "pool_a": POOL_A, "pool_b": POOL_B, "one_hot": ONE_HOT}
    with pytest.MonkeyPatch.context() as patch:
        if precision == "float64":
            patch.setattr(backend, "batch_norm", plain_batch_norm)
            patch.setattr(backend, "instance_norm", plain_instance_norm)
        yield SimpleNamespace(
            networks=networks,
            named=named,
            names={id(variable): name for name, variable in named},
            start=start,
            theirs=THEIRS[resize],
            exact=precision == "float64",
            images={name: x.astype(precision) for name, x in images.items()},
        )


# ---------------------------------------------------------------------------------------------
# Outputs and losses


def outputs(compared, training):
    """The twenty outputs, as the authors name them."""
    n, seen = compared.networks, {name: ops.convert_to_tensor(x) for name, x in compared.images.items()}

    def call(network, *inputs):
        return network(list(inputs) if len(inputs) > 1 else inputs[0], training=training)

    found = {"fake_b": call(n.generator, seen["a"])}
    (z_b, low_b, _), (z_fake_b, low_fake_b, _) = call(n.encoder, seen["b"]), call(n.encoder, found["fake_b"])
    found["fake_a"], found["cycle_a"] = call(n.decoder, z_b, seen["b"]), call(n.decoder, z_fake_b, found["fake_b"])
    found["cycle_b"] = call(n.generator, found["fake_a"])
    found["p_b"], found["p_fake_b"] = call(n.segmenter, z_b), call(n.segmenter, z_fake_b)
    found["p_b_ll"], found["p_fake_b_ll"] = call(n.segmenter_low, low_b), call(n.segmenter_low, low_fake_b)
    seen |= found
    critics = {"d_t": (n.target, "b fake_b pool_b"), "d_p": (n.feature, "p_b p_fake_b")}
    critics["d_p_ll"] = (n.feature_low, "p_b_ll p_fake_b_ll")
    for name, (critic, images) in critics.items():
        found |= {f"{name}({x})": call(critic, seen[x]) for x in images.split()}
    for x in ("a", "fake_a", "pool_a", "cycle_a"):
        real, auxiliary = ops.split(call(n.source, seen[x]), 2, axis=-1)
        found |= {f"d_s({x})": real, f"d_s_aux({x})": auxiliary}
    return found


def losses(compared):
    """The authors' terms and the seven totals, as they name them."""
    o, (a, b, one_hot) = outputs(compared, training=True), (compared.images[name] for name in ("a", "b", "one_hot"))
    found = {
        "cycle_a": sifa.cycle_loss(a, o["cycle_a"]),
        "cycle_b": sifa.cycle_loss(b, o["cycle_b"]),
        "gan_a": sifa.fool(o["d_s(fake_a)"]),
        "gan_b": sifa.fool(o["d_t(fake_b)"]),
        "gan_p": sifa.fool(o["d_p(p_b)"]),
        "gan_p_ll": sifa.fool(o["d_p_ll(p_b_ll)"]),
        "gan_a_aux": sifa.fool(o["d_s_aux(fake_a)"]),
        "ce": sifa.weighted_cross_entropy(o["p_fake_b"], one_hot),
        "dice": sifa.dice_loss(o["p_fake_b"], one_hot),
        "ce_ll": sifa.weighted_cross_entropy(o["p_fake_b_ll"], one_hot),
        "dice_ll": sifa.dice_loss(o["p_fake_b_ll"], one_hot),
        "l2": sifa.DECAY * sum(0.5 * ops.sum(ops.square(v)) for v in sifa.trainable(compared.networks)["segmentation"]),
    }
    weights = {"gan_p": sifa.FEATURE, "gan_p_ll": sifa.FEATURE_LOW, "gan_a_aux": sifa.AUXILIARY, "l2": 1.0}
    aligned = sum(weight * found[name] for name, weight in weights.items())
    cycle, logits = found["cycle_a"] + found["cycle_b"], (o["p_fake_b"], o["p_fake_b_ll"])
    told_apart = sifa.discern(o["d_s(a)"], o["d_s(pool_a)"])
    decoder = cycle + found["gan_a"]
    return found | {
        "total_source": told_apart + sifa.discern(o["d_s_aux(cycle_a)"], o["d_s_aux(pool_a)"]),
        "total_target": sifa.discern(o["d_t(b)"], o["d_t(pool_b)"]),
        "total_generator": cycle + found["gan_b"],
        "total_decoder": decoder,
        "total_feature": sifa.discern(o["d_p(p_fake_b)"], o["d_p(p_b)"]),
        "total_feature_low": sifa.discern(o["d_p_ll(p_fake_b_ll)"], o["d_p_ll(p_b_ll)"]),
        "total_segmentation": sifa.segmentation_loss(*logits, one_hot) + sifa.DECODER * decoder + aligned,
    }


@on(*EVERY)
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_twenty_outputs_are_theirs(compared, mode):
    found, theirs = outputs(compared, mode == "training"), compared.theirs[mode]
    assert len(theirs) == 20
    for name, expected in theirs.items():
        ours = np.asarray(found[name])
        size = expected["l2"] / np.sqrt(ours.size)  # of a typical value
        assert list(ours.shape) == expected["shape"], name
        assert np.linalg.norm(ours) == pytest.approx(expected["l2"], rel=1e-4), name
        assert ours.mean() == pytest.approx(expected["mean"], abs=1e-4 * size), name
        at = {int(i): value for i, value in expected["at"].items()}
        assert len(at) == 8
        np.testing.assert_allclose(ours.ravel()[list(at)], list(at.values()), rtol=1e-4, atol=1e-4 * size, err_msg=name)


@on(*EVERY)
def test_every_loss_is_theirs(compared):
    found = {name: float(value) for name, value in losses(compared).items()}
    assert len(found) == 12 + 7
    assert found == pytest.approx(compared.theirs["losses"], rel=1e-5)


# ---------------------------------------------------------------------------------------------
# Gradients, and one iteration


@pytest.mark.parametrize(
    ("compared", "updates"),
    [*((kind, "simultaneous") for kind in EVERY), ("half_pixel float64", "sequential")],
    indirect=["compared"],
)
def test_the_seven_gradients_are_theirs(compared, updates):
    n, groups, pools = compared.networks, sifa.trainable(compared.networks), compared.images
    variables = [v for _, v in compared.named]

    def step(a, one_hot, b):
        found = {}
        given = (lambda _: pools["pool_a"], lambda _: pools["pool_b"], found.__setitem__)  # no weight changes
        getattr(sifa, updates)(n, a, one_hot, b, *given)
        return found

    with untraced():
        found = backend.compile_step(step, variables)(*(compared.images[name] for name in ("a", "one_hot", "b")))
    training.reset(variables, compared.start)
    found = dict(found) | {"segmentation": sifa.decay(found["segmentation"], groups["segmentation"])}
    assert found.keys() == compared.theirs["gradients"].keys()
    for name, expected in compared.theirs["gradients"].items():
        norms = {compared.names[id(v)]: np.linalg.norm(x) for v, x in zip(groups[name], found[name], strict=True)}
        kernels = {key: norm for key, norm in norms.items() if key.endswith(("kernel", "transposed"))}
        total, single = (1e-4, 1e-4) if compared.exact else (1e-2, 5e-2)  # found: 2e-6, 5e-5; 1e-3, 5e-3
        assert np.linalg.norm(list(norms.values())) == pytest.approx(expected["l2"], rel=total), name
        assert kernels == pytest.approx(expected["l2_by_tensor"], rel=single), name


@pytest.fixture(scope="module")
def iteration(compared):
    """One sequential iteration of ours from their state: losses before each update, moves, statistics of every pass."""
    n, made, passes = compared.networks, [], []
    sequential, move_statistics, total = sifa.sequential, sifa.move_statistics, {}

    def watched(*arguments):
        *given, update = arguments

        def note(name, gradients):
            if name in ("segmentation", "decoder"):  # the results lack their cycles at these weights
                total[name] = losses(compared)[f"total_{name}"]
            update(name, gradients)

        results = sequential(*given, note)
        total.update({name: results[name] for name in ("target", "source", "feature", "feature_low")})
        return results | {"generator": results["cycle"] + results["fool_target"]} | total

    def seen(encoder, statistics):
        passes.extend(np.asarray(x) for x in statistics)
        move_statistics(encoder, statistics)

    with pytest.MonkeyPatch.context() as patch, untraced():
        patch.setattr(Adam, "made", made)
        patch.setattr(sifa, "Adam", Adam)
        patch.setattr(sifa, "sequential", watched)
        patch.setattr(sifa, "move_statistics", seen)
        patch.setattr(sifa.augment, "transform", lambda images, masks, transforms: (images, masks))
        step, _ = sifa.make_step(n, make_settings("smoke", image_size=SIZE, sifa_updates="sequential"))
        for name, optimizer in zip(sifa.trainable(n), made, strict=True):
            training.reset(optimizer.second, [np.ones(v.shape) for v in optimizer.second])  # steps follow gradients
            training.reset([optimizer.step, optimizer.rate], [COUNTS[name] - 1, RATE])
        a, b, *pools, one_hot = (compared.images[name] for name in ("a", "b", "pool_a", "pool_b", "one_hot"))
        results = step(a, one_hot[..., 1:], b, *2 * [np.zeros((BATCH, 8))], *pools, np.ones(2))
    pairs = zip(compared.named, compared.start, strict=True)
    moves = {name: np.asarray(variable.value) - old for (name, variable), old in pairs}
    training.reset([variable for _, variable in compared.named], compared.start)
    theirs = compared.theirs["iteration, shared beta powers (the reference)"]
    return SimpleNamespace(results=results, moves=moves, passes=passes, theirs=theirs)


@on("half_pixel float64")
def test_losses_before_each_update_are_theirs(iteration):
    found = {name: float(iteration.results[name]) for name in COUNTS}
    assert found == pytest.approx(iteration.theirs["losses_before_each_update"], rel=1e-5)


@on("half_pixel float64")
def test_every_update_moves_the_weights_as_theirs(compared, iteration):
    for name, group in sifa.trainable(compared.networks).items():
        names = [compared.names[id(v)] for v in group if v.name != "bias"]
        norm = np.linalg.norm(np.concatenate([iteration.moves[key].ravel() for key in names]))
        assert norm == pytest.approx(iteration.theirs["moves_l2"][name], rel=MOVES[name]), name
        first = iteration.theirs["moves_at"][name]
        move = iteration.moves[first["tensor"]].ravel()[:8]
        assert np.linalg.norm(move - first["first_8"]) <= MOVES[name] * np.linalg.norm(first["first_8"]), name


@on("half_pixel float64")
def test_moving_statistics_differ_from_theirs_in_two_ways_alone(compared, iteration):
    # Theirs follow the two passes of an update at once, from one old value, and D_p,ll's update leaves the last six
    # batch normalisations alone, which its loss does not need. Ours follow the same passes one by one, all of them.
    p, start = iteration.passes, dict(zip(compared.names.values(), compared.start, strict=True))
    assert len(p) == 11
    norms = [name for name, _ in compared.named if name.endswith("moving")]
    ends = np.cumsum([start[name].shape[-1] for name in norms])
    for i, (name, end) in enumerate(zip(norms, ends.tolist(), strict=True)):
        moving = start[name]
        for together in ((0, 1), (2, 3), (4, 5), (6,), (7, 8), (9, 10) if i < len(norms) - 6 else ()):
            parts = [p[k][:, end - moving.shape[-1] : end] for k in together]
            moving = (1 - 0.1 * len(parts)) * moving + 0.1 * sum(parts)
        for what, found in zip(("mean", "variance"), moving, strict=True):
            expected = iteration.theirs["moving"][f"{name}_{what}"]
            assert abs(found.mean() - expected) <= 1e-3 * abs(found).mean(), (name, what)
