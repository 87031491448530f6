"""Normalisations and their moving statistics, beside Keras' own."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from lusbook import backend
from lusbook.norms import BatchNorm, InstanceNorm, move_statistics


@pytest.fixture
def images():
    """A batch whose channels differ in mean and spread."""
    x = np.random.default_rng(0).normal(size=(3, 6, 4, 5))
    return (x * [0.01, 0.1, 1, 3, 10] + [0, -1, 2, 5, 0.5]).astype("float32")


def stirred(layer, images, names):
    """Give scale and centre of a layer, under the names they have there, values of their own."""
    rng = np.random.default_rng(1)
    layer.build(images.shape)
    for name in names:
        variable = getattr(layer, name)
        variable.assign(rng.normal(1, 0.3, variable.shape))
    return layer


def gradients(layer, x, variables):
    """Of a weighted sum of a layer's outputs with respect to its input and variables."""
    weights = np.random.default_rng(2).normal(size=x.shape).astype("float32")

    def loss(x):
        y = layer(x, training=True)
        return [ops.sum(weights * (y[0] if isinstance(y, list | tuple) else y))]

    def step(x):
        (value,), pull = backend.vjp(loss, [x], variables)
        to_inputs, to_variables = pull([ops.ones_like(value)], inputs=True, variables=True)
        return [*to_inputs, *to_variables]

    return [np.asarray(gradient) for gradient in backend.compile_step(step, layer.variables)(x)]


def assert_gradients_agree(ours, theirs, images):
    found = gradients(ours, images, [ours.scale, ours.centre])
    expected = gradients(theirs, images, [theirs.gamma, theirs.beta])
    for one, other in zip(found, expected, strict=True):
        channels = tuple(range(one.ndim - 1))  # a channel of small spread has large gradients
        assert (abs(one - other).max(channels) <= 2e-4 * abs(other).max(channels)).all()


def test_batch_norm_equals_keras(images):
    ours = stirred(BatchNorm(), images, ("scale", "centre"))
    theirs = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    theirs = stirred(theirs, images, ("gamma", "beta"))
    y, statistics = ours(images, training=True)
    np.testing.assert_allclose(y, theirs(images, training=True), atol=1e-5)  # moves the statistics of theirs
    pixels = images.reshape(-1, 5).astype("float64")
    np.testing.assert_allclose(statistics, [pixels.mean(0), pixels.var(0, ddof=1)], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(ours.moving.value, [np.zeros(5), np.ones(5)])  # a call changes nothing

    inputs = keras.Input((6, 4, 5))
    model = keras.Model(inputs, BatchNorm()(ours(inputs)[0]))
    move_statistics(model, [ops.concatenate([statistics, ops.zeros((2, 5))], axis=-1)])
    mean, variance = np.asarray(ours.moving.value)
    np.testing.assert_allclose(mean, theirs.moving_mean.value, rtol=1e-4, atol=1e-6)
    unbiased = len(pixels) / (len(pixels) - 1)  # Keras' variance is the biased one
    np.testing.assert_allclose(
        variance - 0.9, unbiased * (np.asarray(theirs.moving_variance.value) - 0.9), rtol=2e-3, atol=2e-7
    )

    theirs.moving_variance.assign(variance)
    y, statistics = ours(images, training=False)
    np.testing.assert_allclose(y, theirs(images, training=False), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(statistics, ours.moving.value)


def test_gradients_of_batch_norm_equal_keras(images):
    theirs = stirred(layers.BatchNormalization(epsilon=1e-3), images, ("gamma", "beta"))
    assert_gradients_agree(stirred(BatchNorm(), images, ("scale", "centre")), theirs, images)


def test_instance_norm_equals_keras_group_normalisation(images):
    ours = stirred(InstanceNorm(), images, ("scale", "centre"))
    theirs = stirred(layers.GroupNormalization(groups=-1, epsilon=1e-6), images, ("gamma", "beta"))
    np.testing.assert_allclose(ours(images), theirs(images), atol=2e-4)
    np.testing.assert_allclose(ours(images[1:2]), ours(images)[1:2], atol=1e-5)  # every image alone
    assert_gradients_agree(ours, theirs, images)


def two_norms(policy="float32"):
    """A small model of two batch normalisations, with their statistics side by side as its second output."""
    x = inputs = keras.Input((8, 8, 2))
    statistics = []
    for channels in (3, 5):
        x, found = BatchNorm()(layers.Conv2D(channels, 3, use_bias=False, dtype=policy)(x))
        statistics.append(found)
    return keras.Model(inputs, [x, ops.concatenate(statistics, axis=-1)])


def test_statistics_of_a_model_are_in_the_order_of_its_layers():
    model, x = two_norms(), np.random.default_rng(3).normal(size=(2, 8, 8, 2)).astype("float32")
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    expected, y = [], x
    for convolution, norm in zip(convolutions, norms, strict=True):
        y = np.asarray(convolution(y))
        expected.append([y.mean((0, 1, 2)), y.var((0, 1, 2), ddof=1)])
        y = np.asarray(norm(y, training=True)[0])
    statistics = model(x, training=True)[1]
    np.testing.assert_allclose(statistics, np.concatenate(expected, axis=-1), rtol=1e-4, atol=1e-6)
    move_statistics(model, [statistics])
    for norm, (mean, variance) in zip(norms, expected, strict=True):
        np.testing.assert_allclose(norm.moving.value, [0.1 * mean, 0.9 + 0.1 * variance], rtol=1e-4, atol=1e-6)


def test_statistics_of_a_single_norm_move():
    inputs = keras.Input((4, 4, 3))
    norm = BatchNorm()
    model = keras.Model(inputs, norm(inputs)[0])
    move_statistics(model, [np.full((2, 3), 5, "float32")])
    np.testing.assert_allclose(norm.moving.value, [[0.5] * 3, [0.9 + 0.5] * 3], rtol=1e-6)


def test_several_passes_follow_one_after_the_other():
    model, passes = two_norms(), np.random.default_rng(4).uniform(0, 9, (4, 2, 8)).astype("float32")
    move_statistics(model, list(passes))
    expected = np.concatenate([np.zeros((1, 8)), np.ones((1, 8))])
    for statistics in passes:
        expected = 0.9 * expected + 0.1 * statistics
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    np.testing.assert_allclose(np.concatenate([n.moving.value for n in norms], axis=-1), expected, rtol=1e-5)


def test_after_a_bfloat16_convolution_all_is_float32():
    model, x = two_norms("mixed_bfloat16"), np.random.default_rng(5).normal(size=(2, 8, 8, 2)).astype("float32")
    convolution, norm, *_ = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    y = convolution(x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    normalised, statistics = norm(y, training=True)
    for tensor in (normalised, statistics, *model(x, training=True), *model(x, training=False), *model.variables):
        assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
    rounded = np.asarray(ops.cast(y, "float32"))  # exact: statistics are those of what the convolution gave
    expected = [rounded.mean((0, 1, 2)), rounded.var((0, 1, 2), ddof=1)]
    np.testing.assert_allclose(statistics, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.asarray(normalised).var((0, 1, 2)), expected[1] / (expected[1] + 1e-3), rtol=2e-2)
