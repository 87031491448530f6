"""SIFA's networks, losses, gradients and image pools, held to the facts about its reference implementation."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers, ops

from lusbook import backend, sifa, training
from lusbook.norms import BatchNorm, InstanceNorm, move_statistics
from lusbook.settings import make_settings
from lusbook.tables import load_published
from tests.helpers import untraced

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the plain build, and its automatic differentiation, are TensorFlow"
)


def count(variables):  # independent of sifa.count_parameters
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.fixture(scope="module")
def published():
    return sifa.build_networks(64)


@pytest.fixture(scope="module")
def tiny():
    return sifa.build_networks(16, width=0.0625, seed=3)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.9, 0.9, (2, 2, 16, 16, 1)).astype("float32")
    masks = (rng.random((2, 16, 16, 1)) < 0.2).astype("float32")
    return a, np.concatenate([1 - masks, masks], axis=-1), b


# ---------------------------------------------------------------------------------------------
# Architecture, written out a second time: a row is a convolution and what follows it. Kind, kernel, channels in and
# out, stride, zero padding ("same", or the explicit padding of a valid convolution), dilation, bias, norm, activation.


def conv(size, before, after, stride=1, padding="same", dilation=1, bias=False, norm="IN", then="ReLU"):
    return ("Conv2D", size, before, after, stride, padding, dilation, bias, norm, then)


def transposed(before, after):
    return ("Conv2DTranspose", 3, before, after, 2, "same", 1, True, "IN", "ReLU")


def residual(before, after, **options):
    return [conv(3, before, after, **options), conv(3, after, after, **options, then="Add ReLU")]


def discriminator(before, after):
    return [
        conv(4, before, 64, 2, 2, norm=None, then="LeakyReLU"),
        conv(4, 64, 128, 2, 2, then="LeakyReLU"),
        conv(4, 128, 256, 2, 2, then="LeakyReLU"),
        conv(4, 256, 512, 1, 2, then="LeakyReLU"),
        conv(4, 512, after, 1, 2, norm=None, then=""),
    ]


SEGMENTER = [conv(1, 512, 2, norm=None, then="UpSampling2D")]
ENCODER = [16, 16, 32, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512]  # the stem, then a residual block each
REFERENCE = {
    "generator": [
        conv(7, 1, 32, 1, 3, bias=True),
        conv(3, 32, 64, 2, bias=True),
        conv(3, 64, 128, 2, bias=True),
        *9 * residual(128, 128, bias=True),
        transposed(128, 64),
        transposed(64, 32),
        conv(7, 32, 1, bias=True, norm=None, then="Add Tanh"),
    ],
    "encoder": [
        conv(7, 1, 16, norm="BN"),
        *(row for pair in zip(ENCODER, ENCODER[1:], strict=False) for row in residual(*pair, norm="BN")),
        *2 * residual(512, 512, dilation=2, bias=True, norm="BN"),
        *2 * [conv(3, 512, 512, norm="BN")],
    ],
    "decoder": [
        conv(3, 512, 128),
        *4 * residual(128, 128),
        transposed(128, 64),
        transposed(64, 64),
        transposed(64, 32),
        conv(7, 32, 1, norm=None, then="Add Tanh"),
    ],
    "segmenter": SEGMENTER,
    "segmenter_low": SEGMENTER,
    "source": discriminator(1, 2),
    "target": discriminator(1, 1),
    "feature": discriminator(2, 1),
    "feature_low": discriminator(2, 1),
}
NORMS = {"BatchNorm": "BN", "InstanceNorm": "IN"}


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D | layers.Conv2DTranspose)]


def described(model):
    """Rows of the architecture as a Keras model holds it."""
    users, makers = {}, {}  # operations by the tensors that they take and give
    for operation in model.operations:
        makers |= {id(tensor): operation for tensor in keras.tree.flatten(operation.output)}
        for tensor in [] if isinstance(operation, layers.InputLayer) else keras.tree.flatten(operation.input):
            users.setdefault(id(tensor), []).append(operation)

    def then(operation):
        found = users.get(id(keras.tree.flatten(operation.output)[0]), [])
        return found[0] if found else None

    rows = []
    for layer in convolutions(model):
        padded = makers[id(layer.input)]
        padding = padded.padding[0][0] if isinstance(padded, layers.ZeroPadding2D) else 0
        following, norm, names = then(layer), None, []
        if type(following).__name__ in NORMS:
            norm, following = NORMS[type(following).__name__], then(following)
        while following is not None:
            names.append(type(following).__name__)
            following = then(following) if names[-1] == "Add" else None
        channels = layer.kernel.shape[2:]
        before, after = channels if type(layer) is layers.Conv2D else channels[::-1]
        ((size, _), (stride, _), (dilation, _)) = layer.kernel_size, layer.strides, layer.dilation_rate
        assert layer.kernel.shape[:2] == layer.kernel_size == (size, size)
        assert (layer.strides, layer.dilation_rate) == ((stride,) * 2, (dilation,) * 2)
        assert (layer.bias is not None) == layer.use_bias
        padding = padding if layer.padding == "valid" else layer.padding if padding == 0 else "both"
        row = (
            type(layer).__name__,
            size,
            before,
            after,
            stride,
            padding,
            dilation,
            layer.use_bias,
            norm,
            " ".join(names),
        )
        rows.append(row)
    return rows


@pytest.mark.parametrize("name", REFERENCE)
def test_every_layer_is_the_reference_s(published, name):
    assert described(getattr(published, name)) == REFERENCE[name]


def test_biases_are_only_where_the_reference_has_them():
    for name, rows in REFERENCE.items():  # the table above follows the rule; the networks follow the table
        for kind, *_, dilation, bias, _, _ in rows:
            assert bias == (name == "generator" or kind == "Conv2DTranspose" or dilation > 1)


def test_what_else_the_networks_hold(published):
    kinds = {name: [type(layer).__name__ for layer in model.layers] for name, model in vars(published).items()}
    assert {name: found.count("MaxPooling2D") for name, found in kinds.items() if "MaxPooling2D" in found} == {
        "encoder": 3
    }
    assert not any("Dropout" in found for found in kinds.values())  # the reference keeps all
    for model in (published.source, published.target, published.feature, published.feature_low):
        slopes = [layer.negative_slope for layer in model.layers if isinstance(layer, layers.LeakyReLU)]
        assert slopes == [pytest.approx(0.2)] * 4
    for model in (published.segmenter, published.segmenter_low):
        (resize,) = [layer for layer in model.layers if isinstance(layer, layers.UpSampling2D)]
        assert (resize.size, resize.interpolation) == ((8, 8), "bilinear")


def test_trainable_parameters_are_the_published(published):
    expected = load_published("sifa-parameters").set_index("network")["parameters"]
    assert sifa.count_parameters(published) == expected.to_dict()
    for name, rows in REFERENCE.items():  # and the table's own sum
        weights = sum(k * k * i * o + o * bias + 2 * o * bool(norm) for _, k, i, o, *_, bias, norm, _ in rows)
        assert weights == expected[name] == count(getattr(published, name).trainable_variables)


def test_parameters_with_five_classes():
    assert count(sifa.build_discriminator(16, inputs=5).trainable_variables) == 2_767_616
    assert count(sifa.build_segmenter(16, classes=5).trainable_variables) == 2_560


@pytest.mark.parametrize("size", [64, 128, 256])
def test_output_shapes_and_strides(size):
    networks = sifa.build_networks(size, width=0.0625)
    half, quarter, eighth = size // 2, size // 4, size // 8
    patches = [half + 1, quarter + 1, eighth + 1, eighth + 2, eighth + 3]  # 4 x 4 and a padding of 2: one more each
    sides = {
        "generator": [size, half] + 19 * [quarter] + [half, size, size],
        "encoder": 3 * [size] + 2 * [half] + 4 * [quarter] + 22 * [eighth],
        "decoder": 9 * [eighth] + [quarter, half, size, size],
        "segmenter": [eighth],
        "segmenter_low": [eighth],
        "source": patches,
        "target": patches,
        "feature": patches,
        "feature_low": patches,
    }
    for name, expected in sides.items():
        found = [layer.output.shape[1:3] for layer in convolutions(getattr(networks, name))]
        assert found == [(side, side) for side in expected], name
    shapes = {name: [output.shape for output in network.outputs] for name, network in vars(networks).items()}
    image, logits = (None, size, size, 1), (None, size, size, 2)
    tap, scores = (None, eighth, eighth, 32), (None, eighth + 3, eighth + 3, 1)
    normalised = 3 * 1 + 2 * 2 + 4 * 4 + 4 * 8 + 8 * 16 + 10 * 32  # channels of the batch normalisations
    assert shapes == {
        "generator": [image],
        "encoder": [tap, tap, (2, normalised)],
        "decoder": [image],
        "segmenter": [logits],
        "segmenter_low": [logits],
        "source": [(*scores[:3], 2)],
        "target": [scores],
        "feature": [scores],
        "feature_low": [scores],
    }


def test_the_low_level_tap_is_the_last_block_before_the_dilated_ones(published):
    low = published.encoder.outputs[1]
    kernels = [layer for layer in convolutions(published.encoder) if layer.dilation_rate == (2, 2)]
    assert kernels[0].input is low


def test_a_widening_block_pads_its_shortcut_with_half_of_the_zeros_on_each_side():
    for norm in (InstanceNorm, BatchNorm):
        inputs = keras.Input((4, 4, 2))
        model = keras.Model(inputs, sifa.Builder(1.0, 0.02, norm, False, 0).residual(inputs, 6))
        for layer in convolutions(model):
            layer.kernel.assign(np.zeros(layer.kernel.shape))  # leaves the shortcut alone
        x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
        y = np.asarray(model(x, training=True))
        np.testing.assert_array_equal(y[..., 2:4], np.maximum(x, 0))
        assert not y[..., :2].any() and not y[..., 4:].any()


@pytest.mark.parametrize("name", REFERENCE)
def test_normalisations_have_scale_centre_and_the_reference_s_epsilon(tiny, name):
    for layer in getattr(tiny, name).layers:
        if type(layer).__name__ not in NORMS:
            continue
        assert [(v.name, *v.shape) for v in layer.trainable_variables] == [
            ("scale", layer.input.shape[-1]),
            ("centre", layer.input.shape[-1]),
        ]
        epsilon = 1e-6 if isinstance(layer, InstanceNorm) else 1e-3
        x = np.ones((1, 4, 4, layer.input.shape[-1]), "float32")
        x[:, ::2] = -1  # mean 0, variance 1; and at the square root of epsilon half of the variance is epsilon
        for height, expected in ((1.0, 1 / np.sqrt(1 + epsilon)), (np.sqrt(epsilon), np.sqrt(0.5))):
            y = keras.tree.flatten(layer(ops.convert_to_tensor(height * x), **training_of(layer)))[0]
            np.testing.assert_allclose(y, expected * x, rtol=1e-5)


def training_of(layer):
    return {"training": True} if isinstance(layer, BatchNorm) else {}


def test_moving_statistics_follow_with_momentum_0_9(batch):
    encoder = sifa.build_encoder(16, 0.0625)
    norms = [layer for layer in encoder.layers if isinstance(layer, BatchNorm)]
    for times in (1, 2):
        used = encoder(batch[0], training=True)[2]
        move_statistics(encoder, [used])
        found = np.concatenate([np.asarray(layer.moving.value) for layer in norms], axis=-1)
        kept = 0.9**times  # batch statistics do not depend on the moving ones: the same pass twice
        np.testing.assert_allclose(found, (1 - kept) * np.asarray(used) + [[0.0], [kept]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", REFERENCE)
def test_initialisers(published, name):
    residuals = range(1, 9)  # of the decoder
    small = {"encoder": range(31), "decoder": residuals, "segmenter": [0], "segmenter_low": [0]}
    for i, layer in enumerate(convolutions(getattr(published, name))):
        stddev = 0.01 if i in small.get(name, []) else 0.02
        initializer = layer.kernel_initializer
        assert type(initializer) is keras.initializers.TruncatedNormal
        assert (initializer.mean, initializer.stddev) == (0.0, stddev)
        values = np.asarray(layer.kernel.value)
        assert abs(values).max() <= 2 * stddev  # truncated at two standard deviations,
        if values.size > 50_000:
            assert values.std() == pytest.approx(0.8796 * stddev, rel=0.02)  # which leaves 0.88 of the spread
        assert not layer.use_bias or not np.asarray(layer.bias.value).any()


def test_initial_kernels_differ(published):
    kernels = [layer.kernel for model in vars(published).values() for layer in convolutions(model)]
    assert len({np.asarray(kernel.value).ravel()[:8].tobytes() for kernel in kernels}) == len(kernels)


def test_translations_keep_the_range_and_start_near_the_input(tiny, batch):
    a, _, _ = batch
    fake = np.asarray(tiny.generator(a))
    assert abs(fake).max() <= 1
    assert np.corrcoef(fake.ravel(), np.tanh(a).ravel())[0, 1] > 0.9


def test_evaluation_leaves_moving_statistics_alone(tiny, batch):
    before = [np.asarray(v.value) for v in tiny.encoder.non_trainable_variables]
    tiny.encoder(batch[0], training=False)
    for old, variable in zip(before, tiny.encoder.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.value)


# ---------------------------------------------------------------------------------------------
# Losses, in NumPy


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(logits, one_hot):
    """Class weights over the whole batch; log clipped at 0.005."""
    p, found = softmax(logits), 0.0
    for c in range(one_hot.shape[-1]):
        weight = 1 - one_hot[..., c].sum() / one_hot.sum()
        found -= np.mean(weight * one_hot[..., c] * np.log(np.clip(p[..., c], 0.005, 1)))
    return found


def dice(logits, one_hot):
    """Over the whole batch, mean over the classes, squared prediction in the denominator."""
    p, found = softmax(logits), []
    for c in range(one_hot.shape[-1]):
        overlap, total = (p[..., c] * one_hot[..., c]).sum(), (p[..., c] ** 2).sum() + one_hot[..., c].sum()
        found.append(2 * overlap / (total + 1e-7))
    return 1 - np.mean(found)


def gan(scores):
    return np.mean((scores - 1) ** 2)


def told_apart(real, fake):
    return (np.mean((real - 1) ** 2) + np.mean(fake**2)) / 2


@pytest.fixture
def logits(batch):
    return np.random.default_rng(2).normal(0, 4, (2, *batch[1].shape)).astype("float32")


def test_cross_entropy_and_dice_follow_their_formulas(batch, logits):
    _, y, _ = batch
    assert (softmax(logits[0]) < 0.005).any()  # the clipped part is tried, too
    assert float(sifa.weighted_cross_entropy(logits[0], y)) == pytest.approx(cross_entropy(logits[0], y), rel=1e-5)
    assert float(sifa.dice_loss(logits[0], y)) == pytest.approx(dice(logits[0], y), rel=1e-5)
    parts = [loss(x, y) for x in logits for loss in (cross_entropy, dice)]
    assert float(sifa.segmentation_loss(*logits, y)) == pytest.approx(np.dot(parts, [1, 1, 0.1, 0.1]), rel=1e-5)


def test_class_weights_and_dice_are_over_the_batch(logits):
    y = np.zeros((2, 16, 16, 2), "float32")
    y[0, ..., 1], y[1, ..., 0] = 1, 1  # image by image, each class has weight 0 or no pixel
    for ours, reference in ((sifa.weighted_cross_entropy, cross_entropy), (sifa.dice_loss, dice)):
        apart = np.mean([reference(x, image) for x, image in zip(logits[0][:, None], y[:, None], strict=True)])
        assert float(ours(logits[0], y)) == pytest.approx(reference(logits[0], y), rel=1e-5)
        assert abs(reference(logits[0], y) - apart) > 0.1


def test_perfect_segmentation_has_almost_no_loss(batch):
    _, y, _ = batch
    assert float(sifa.dice_loss(40 * y, y)) == pytest.approx(0, abs=1e-5)
    assert float(sifa.weighted_cross_entropy(40 * y, y)) == pytest.approx(0, abs=1e-5)


def test_cycle_loss_follows_its_formula(batch):
    a, _, b = batch
    assert float(sifa.cycle_loss(a, b)) == pytest.approx(10 * np.mean(np.abs(a - b)), rel=1e-5)


def test_adversarial_losses_follow_their_formulas():
    real, fake, cycle = np.random.default_rng(3).normal(size=(3, 3, 4, 4, 2)).astype("float32")
    assert float(sifa.fool(fake)) == pytest.approx(gan(fake), rel=1e-5)
    assert float(sifa.discern(real, fake)) == pytest.approx(told_apart(real, fake), rel=1e-5)
    halves = sifa.discern_halves(np.concatenate([real, fake]))
    assert float(halves) == pytest.approx(told_apart(real, fake), rel=1e-5)
    expected = told_apart(real[..., 0], fake[..., 0]) + told_apart(cycle[..., 1], fake[..., 1])
    assert float(sifa.discern_source(np.concatenate([real, fake, cycle]))) == pytest.approx(expected, rel=1e-5)


def test_decay_is_the_gradient_of_half_the_squares(tiny):
    variables = tiny.segmenter.trainable_variables
    (gradient,) = sifa.decay([np.ones(variables[0].shape, "float32")], variables)
    np.testing.assert_allclose(gradient, 1 + 1e-4 * np.asarray(variables[0].value), rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# The seven updates


@pytest.fixture(scope="module")
def stored(batch):
    return np.random.default_rng(4).uniform(-0.9, 0.9, (2, *batch[0].shape)).astype("float32")


@pytest.fixture(scope="module")
def stirred():
    """Networks away from their start, where centres and biases are 0 and all logits and scores alike."""
    networks, rng = sifa.build_networks(16, width=0.0625, seed=5), np.random.default_rng(5)
    for name, network in vars(networks).items():
        for variable in network.trainable_variables:
            if len(variable.shape) == 1:
                variable.assign(np.asarray(variable.value) + rng.normal(0, 0.1, variable.shape))
            elif name.startswith("segmenter"):
                variable.assign(20 * np.asarray(variable.value))
    return networks


ORDER = ["generator", "target", "segmentation", "decoder", "source", "feature", "feature_low"]


def record(algorithm, networks, a, one_hot, b, stored):
    """Losses and the seven gradients of an algorithm whose updates change no weight; they must come in order."""
    variables = [variable for network in vars(networks).values() for variable in network.variables]
    pools = (lambda fake: stored[0], lambda fake: stored[1])

    def step(a, one_hot, b):
        found = {}
        results = algorithm(networks, a, one_hot, b, *pools, found.__setitem__)
        assert list(found) == ORDER  # here: JAX gives back dictionaries sorted
        return results, found

    with untraced():
        return backend.compile_step(step, variables)(a, one_hot, b)


@pytest.fixture(scope="module")
def recorded(stirred, batch, stored):
    return {way: record(getattr(sifa, way), stirred, *batch, stored) for way in ("simultaneous", "sequential")}


def test_every_loss_of_an_iteration_follows_the_reference(recorded, stirred, batch, stored):
    def call(network, *inputs):
        found = network(list(inputs) if len(inputs) > 1 else inputs[0], training=True)
        return [np.asarray(x) for x in found] if isinstance(found, list | tuple) else np.asarray(found)

    n, (a, y, b) = stirred, batch
    fake_b = call(n.generator, a)
    (z_b, low_b, _), (z_fake_b, low_fake_b, _) = call(n.encoder, b), call(n.encoder, fake_b)
    fake_a, cycle_a = call(n.decoder, z_b, b), call(n.decoder, z_fake_b, fake_b)
    cycle_b = call(n.generator, fake_a)
    p_b, p_fake_b = call(n.segmenter, z_b), call(n.segmenter, z_fake_b)
    q_b, q_fake_b = call(n.segmenter_low, low_b), call(n.segmenter_low, low_fake_b)
    judged, judged_a, judged_pool, judged_cycle = (call(n.source, x) for x in (fake_a, a, stored[0], cycle_a))
    low = cross_entropy(q_fake_b, y) + dice(q_fake_b, y)
    expected = {
        "cycle": 10 * np.mean(np.abs(a - cycle_a)) + 10 * np.mean(np.abs(b - cycle_b)),
        "fool_target": gan(call(n.target, fake_b)),
        "fool_source": gan(judged[..., 0]),
        "segmentation": cross_entropy(p_fake_b, y) + dice(p_fake_b, y) + 0.1 * low,
        "alignment": 0.1 * gan(call(n.feature, p_b)) + 0.01 * gan(call(n.feature_low, q_b)) + 0.1 * gan(judged[..., 1]),
        "target": told_apart(call(n.target, b), call(n.target, stored[1])),
        "source": told_apart(judged_a[..., 0], judged_pool[..., 0])
        + told_apart(judged_cycle[..., 1], judged_pool[..., 1]),
        "feature": told_apart(call(n.feature, p_fake_b), call(n.feature, p_b)),
        "feature_low": told_apart(call(n.feature_low, q_fake_b), call(n.feature_low, q_b)),
    }
    for way, (results, _) in recorded.items():
        assert set(results) == {*expected, "fake_a", "fake_b"}
        for name, value in expected.items():
            assert float(results[name]) == pytest.approx(value, rel=1e-4), (way, name)
        np.testing.assert_allclose(results["fake_a"], fake_a, atol=1e-5)
        np.testing.assert_allclose(results["fake_b"], fake_b, atol=1e-5)


def distance(found, expected):
    """Relative L2 distance of two lists of tensors."""
    found, expected = (np.concatenate([np.ravel(x) for x in tensors]) for tensors in (found, expected))
    assert np.linalg.norm(expected) > 0
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_both_ways_give_the_same_seven_gradients(recorded):
    (one, shared), (other, alone) = recorded["simultaneous"], recorded["sequential"]
    assert set(shared) == set(alone) == set(ORDER)
    for name in ORDER:
        assert distance(shared[name], alone[name]) <= 1e-4, name
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)


def copied(networks, size):
    """The plain build of benchmarks/plain_sifa.py with the same weights: Keras' own normalisations, not lusbook's."""
    import plain_sifa

    plain = plain_sifa.build_networks(size, 0.0625)
    for name, network in vars(networks).items():
        theirs = getattr(plain, name).trainable_variables
        for variable, other in zip(network.trainable_variables, theirs, strict=True):
            kinds = {"gamma": "scale", "beta": "centre"}
            assert variable.name == kinds.get(other.name, other.name)
            other.assign(variable.value)
    return plain


def seven_losses(n, a, y, b, stored):
    """Total loss of each update, at one set of weights, as TensorFlow differentiates it by itself."""
    import tensorflow as tf

    def call(network, *inputs):
        return network(list(inputs) if len(inputs) > 1 else inputs[0], training=True)

    def gan(scores):
        return tf.reduce_mean(tf.square(scores - 1))

    def told_apart(real, fake):
        return 0.5 * gan(real) + 0.5 * tf.reduce_mean(tf.square(fake))

    def supervised(logits):
        share = tf.reduce_sum(y, (0, 1, 2)) / tf.reduce_sum(y)
        p = tf.nn.softmax(logits)
        logs = tf.math.log(tf.clip_by_value(p, 0.005, 1.0))
        overlap, total = tf.reduce_sum(p * y, (0, 1, 2)), tf.reduce_sum(p**2 + y, (0, 1, 2))
        return -tf.reduce_mean(tf.reduce_sum((1 - share) * y * logs, -1)) + 1 - tf.reduce_mean(2 * overlap / total)

    fake_b = call(n.generator, a)
    (z_b, low_b), (z_fake_b, low_fake_b) = call(n.encoder, b), call(n.encoder, fake_b)
    fake_a, cycle_a = call(n.decoder, z_b, b), call(n.decoder, z_fake_b, fake_b)
    cycle_b = call(n.generator, fake_a)
    p_b, p_fake_b = call(n.segmenter, z_b), call(n.segmenter, z_fake_b)
    q_b, q_fake_b = call(n.segmenter_low, low_b), call(n.segmenter_low, low_fake_b)
    cycle = 10 * tf.reduce_mean(tf.abs(a - cycle_a)) + 10 * tf.reduce_mean(tf.abs(b - cycle_b))
    judged, pooled = call(n.source, fake_a), call(n.source, stored[0])
    decoder = cycle + gan(judged[..., 0])
    weights = [v.value for m in (n.encoder, n.segmenter, n.segmenter_low) for v in m.trainable_variables]
    return {
        "generator": cycle + gan(call(n.target, fake_b)),
        "target": told_apart(call(n.target, b), call(n.target, stored[1])),
        "segmentation": supervised(p_fake_b)
        + 0.1 * supervised(q_fake_b)
        + 0.1 * decoder
        + 0.1 * gan(call(n.feature, p_b))
        + 0.01 * gan(call(n.feature_low, q_b))
        + 0.1 * gan(judged[..., 1])
        + 1e-4 * tf.add_n([tf.nn.l2_loss(w) for w in weights]),
        "decoder": decoder,
        "source": told_apart(call(n.source, a)[..., 0], pooled[..., 0])
        + told_apart(call(n.source, cycle_a)[..., 1], pooled[..., 1]),
        "feature": told_apart(call(n.feature, p_fake_b), call(n.feature, p_b)),
        "feature_low": told_apart(call(n.feature_low, q_fake_b), call(n.feature_low, q_b)),
    }


@on_tensorflow
def test_gradients_network_by_network_equal_plain_automatic_differentiation(recorded, stirred, batch, stored):
    import tensorflow as tf

    plain = copied(stirred, 16)
    with tf.GradientTape(persistent=True) as tape:
        losses = seven_losses(plain, *(tf.constant(x) for x in (*batch, stored)))
    ours = dict(recorded["simultaneous"][1])
    ours["segmentation"] = sifa.decay(ours["segmentation"], sifa.trainable(stirred)["segmentation"])
    for name, variables in sifa.trainable(plain).items():
        expected = tape.gradient(losses[name], [variable.value for variable in variables])
        assert distance(ours[name], expected) <= 1e-4, name


def kernels_and_centres(networks):
    """By network: biases before a normalisation have only rounding for a gradient, scales of 1 no digits for a step."""
    kinds = ("kernel", "centre", "beta")
    return {
        name: [np.asarray(v.value).copy() for v in network.trainable_variables if v.name in kinds]
        for name, network in vars(networks).items()
    }


@pytest.fixture(scope="module")
def side_by_side():
    """Three iterations of lusbook's sequential updates and of the plain build's, from the same weights.

    At the published learning rates a difference of rounding grows a millionfold in an iteration; a hundredth of them,
    and a larger epsilon of Adam, keep single precision comparable.
    """
    import common
    import plain_sifa

    size, rates = 32, {"sifa_learning_rate": 2e-6, "sifa_segmenter_learning_rate": 1e-5}
    settings = make_settings("smoke", image_size=size, sifa_updates="sequential", **rates)
    networks = sifa.build_networks(size, 0.0625)
    plain = copied(networks, size)
    start = kernels_and_centres(networks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sifa, "Adam", lambda *options: training.Adam(*options, epsilon=1e-3))
        step, _ = sifa.make_step(networks, settings)
    plain_step, rounds = plain_sifa.make_step(plain, *rates.values(), 1e-3), []
    with common.without_augmentation(), untraced():
        for iteration in range(3):
            a, b, *stored = (common.random_images(2, size, (iteration, i)) for i in range(4))
            masks, use_stored = common.random_masks(2, size, iteration), np.float32([iteration % 2, iteration < 1])
            expected = plain_step(a, np.concatenate([1 - masks, masks], -1), b, *stored, use_stored)
            found = step(a, masks, b, *2 * [common.identity_transforms(2)], *stored, use_stored)
            rounds.append((found, expected, *map(kernels_and_centres, (networks, plain))))
    return SimpleNamespace(networks=networks, plain=plain, start=start, rounds=rounds)


@on_tensorflow
def test_sequential_updates_equal_the_plain_build_s(side_by_side):
    # Rounding grows: bounds of what it grows to, on processors of two makes. Simultaneous updates part at once:
    # losses by up to 6e-4 in the first iteration and 5e-3 in the second, images by 0.04, the encoder's moves by 0.26.
    bounds = zip((1e-4, 1e-3, 1e-2), (0.02, 0.1, 0.25), (0.1, 0.15, 0.25), strict=True)
    for (image, most, deep), (found, expected, ours, theirs) in zip(bounds, side_by_side.rounds, strict=True):
        assert found.keys() == expected.keys()
        for name in found.keys() - {"fake_a", "fake_b"}:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-4), name
        for name in ("fake_a", "fake_b"):
            assert distance([found[name]], [expected[name]]) <= image, name
        for name, old in side_by_side.start.items():
            moves = ([new - x for new, x in zip(side[name], old, strict=True)] for side in (ours, theirs))
            assert distance(*moves) <= (deep if name in ("generator", "decoder") else most), name


@on_tensorflow
def test_moving_statistics_follow_the_passes_of_the_plain_build(side_by_side):
    # Both see eleven passes an iteration, in the same order. What the weights' rounding leaves is below 4e-4; the last
    # two passes in the other order change the first layer's means by 2e-2, all variances by more than 1e-3.
    left = 0.9 ** (11 * len(side_by_side.rounds))  # of a start at 1
    norms = [layer for layer in side_by_side.networks.encoder.layers if isinstance(layer, BatchNorm)]
    plain = [layer for layer in side_by_side.plain.encoder.layers if isinstance(layer, layers.BatchNormalization)]
    for ours, theirs in zip(norms, plain, strict=True):
        mean, variance = np.asarray(ours.moving.value)
        pixels = 2 * ours.input.shape[1] * ours.input.shape[2]
        expected = (np.asarray(theirs.moving_variance.value) - left) * pixels / (pixels - 1)  # Keras' is the biased one
        assert distance([mean], [theirs.moving_mean.value]) <= 1e-3
        assert distance([variance - left], [expected]) <= 1e-3


def test_rates_are_the_paper_s_and_only_the_segmentation_step_decays_weights(tiny, batch, stored, monkeypatch):
    taken, steps = [], {}

    class Recorder:
        """In place of Adam: notes its rate and beta_1, and the gradients of its one step."""

        variables = ()

        def __init__(self, parameters, rate, beta_1):
            self.options = (rate, beta_1)

        def apply(self, gradients):
            taken.append((self.options, gradients))

    def still(networks, a, one_hot, b, pool_a, pool_b, update):
        for name, variables in sifa.trainable(networks).items():
            update(name, [ops.zeros(variable.shape) for variable in variables])
            steps[name] = taken[-1][0]
        return {name: gradients for name, (_, gradients) in zip(steps, taken, strict=True)}

    monkeypatch.setattr(sifa, "Adam", Recorder)
    monkeypatch.setattr(sifa, "sequential", still)
    step, _ = sifa.make_step(tiny, make_settings("paper", image_size=16))
    a, one_hot, b = batch
    identity = np.tile(np.float32([1, 0, 0, 0, 1, 0, 0, 0]), (2, 1))
    with untraced():
        found = step(a, one_hot[..., 1:], b, identity, identity, *stored, np.zeros(2, "float32"))
    assert list(steps) == ORDER
    for name, variables in sifa.trainable(tiny).items():
        segmentation = name == "segmentation"
        assert steps[name] == ((1e-3, 0.9) if segmentation else (2e-4, 0.5))
        for gradient, variable in zip(found[name], variables, strict=True):
            np.testing.assert_allclose(gradient, 1e-4 * segmentation * np.asarray(variable.value), rtol=1e-6)


@pytest.mark.parametrize("updates", ["simultaneous", "sequential"])
def test_an_iteration_changes_every_network(updates):
    settings = make_settings("smoke", image_size=16, sifa_updates=updates)
    networks = sifa.build_networks(16, settings.sifa_width)
    step, _ = sifa.make_step(networks, settings)
    rng = np.random.default_rng(0)
    image = lambda: rng.uniform(-0.9, 0.9, (2, 16, 16, 1)).astype("float32")  # noqa: E731
    identity = np.tile(np.array([1, 0, 0, 0, 1, 0, 0, 0], "float32"), (2, 1))
    before = {name: np.asarray(n.trainable_variables[0].value).copy() for name, n in vars(networks).items()}
    mask = (image() > 0).astype("float32")
    with untraced():  # compiled steps are what test_runs.py runs
        losses = step(image(), mask, image(), identity, identity, image(), image(), np.zeros(2, "float32"))
    assert {"fake_a", "fake_b"} < set(losses)
    assert all(np.isfinite(np.asarray(value)).all() for value in losses.values())
    for name, network in vars(networks).items():
        assert not np.array_equal(before[name], network.trainable_variables[0].value), name


def test_image_pool_fills_then_swaps_about_half():
    pool, rng = sifa.ImagePool(3, (1,)), np.random.default_rng(0)
    for value in range(3):
        slot, used = pool.draw(rng, value)
        assert (slot, used) == (value, False)
        pool.put(slot, np.array([value]))
    draws = [pool.draw(rng, iteration) for iteration in range(3, 403)]
    assert all((slot is not None) == used for slot, used in draws)
    assert 150 < sum(used for _, used in draws) < 250
    assert {slot for slot, used in draws if used} == {0, 1, 2}
    pool.put(1, np.array([9]))
    assert pool.batches.ravel().tolist() == [0, 9, 2]


def test_adam_equals_keras():
    start = np.random.default_rng(5).normal(size=(4, 3)).astype("float32")
    ours, theirs = keras.Variable(start), keras.Variable(start)
    mine, other = training.Adam([ours], 0.01, 0.5), keras.optimizers.Adam(0.01, 0.5, epsilon=1e-8)
    step = backend.compile_step(lambda gradient: mine.apply([gradient]) or {}, [ours, *mine.variables])
    for gradient in np.random.default_rng(6).normal(size=(5, 4, 3)).astype("float32"):
        step(gradient)
        other.apply([ops.convert_to_tensor(gradient)], [theirs])
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-5)
