"""SIFA's networks, losses, gradients and image pools."""

import numpy as np
import pytest
from keras import ops

from lusbook import backend, sifa, training
from lusbook.settings import make_settings
from lusbook.tables import load_published


def count(variables):  # independent of sifa.count_parameters
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.fixture(scope="module")
def published():
    return sifa.build_networks(64)


@pytest.fixture(scope="module")
def tiny():
    return sifa.build_networks(16, width=0.0625, seed=3)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.9, 0.9, (2, 2, 16, 16, 1)).astype("float32")
    masks = (rng.random((2, 16, 16, 1)) < 0.2).astype("float32")
    return a, np.concatenate([1 - masks, masks], axis=-1), b


def test_trainable_parameters_are_the_published(published):
    expected = load_published("sifa-parameters").set_index("network")["parameters"]
    assert sifa.count_parameters(published) == expected.to_dict()


def test_parameters_with_five_classes():
    assert count(sifa.build_discriminator(16, inputs=5).trainable_variables) == 2_767_616
    assert count(sifa.build_segmenter(16, classes=5).trainable_variables) == 2_560


@pytest.mark.parametrize("size", [64, 128, 256])
def test_output_shapes(size):
    networks = sifa.build_networks(size, width=0.0625)
    assert networks.generator.output_shape == (None, size, size, 1)
    assert [output.shape for output in networks.encoder.outputs] == [(None, size // 8, size // 8, 32)] * 2
    assert networks.decoder.output_shape == (None, size, size, 1)
    assert networks.segmenter.output_shape == (None, size, size, 2)
    assert networks.source.output_shape == (None, size // 8 + 3, size // 8 + 3, 2)
    assert networks.feature.output_shape == (None, size // 8 + 3, size // 8 + 3, 1)


def test_biases_are_only_where_the_reference_has_them(published):
    for network in vars(published).values():
        for layer in network.layers:
            if type(layer).__name__ not in ("Conv2D", "Conv2DTranspose"):
                continue
            transposed = type(layer).__name__ == "Conv2DTranspose"
            dilated = layer.dilation_rate != (1, 1)
            assert layer.use_bias == (network.name == "generator" or transposed or dilated), (network.name, layer.name)


@pytest.mark.parametrize(
    ("name", "stddev"), [("generator", 0.02), ("decoder", 0.02), ("target", 0.02), ("encoder", 0.01)]
)
def test_initial_spread(published, name, stddev):
    kernels = [v for v in getattr(published, name).trainable_variables if len(v.shape) == 4 and count([v]) > 50_000]
    for kernel in kernels:
        values = np.asarray(kernel.value)
        assert abs(values).max() <= 2 * stddev  # truncated at two standard deviations,
        assert values.std() == pytest.approx(0.8796 * stddev, rel=0.02)  # which leaves 0.88 of the spread


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


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_cross_entropy_and_dice_follow_their_formulas(batch):
    _, y, _ = batch
    logits = np.random.default_rng(2).normal(0, 4, y.shape).astype("float32")
    p = softmax(logits)
    expected = 0.0
    for c in range(2):
        weight = 1 - y[..., c].sum() / y.sum()
        expected -= np.mean(weight * y[..., c] * np.log(np.clip(p[..., c], 0.005, 1)))
    assert float(sifa.weighted_cross_entropy(logits, y)) == pytest.approx(expected, rel=1e-5)
    dice = [2 * (p[..., c] * y[..., c]).sum() / ((p[..., c] ** 2).sum() + y[..., c].sum() + 1e-7) for c in range(2)]
    assert float(sifa.dice_loss(logits, y)) == pytest.approx(1 - np.mean(dice), rel=1e-5)


def test_perfect_segmentation_has_almost_no_loss(batch):
    _, y, _ = batch
    assert float(sifa.dice_loss(40 * y, y)) == pytest.approx(0, abs=1e-5)
    assert float(sifa.weighted_cross_entropy(40 * y, y)) == pytest.approx(0, abs=1e-5)


def test_adversarial_losses_follow_their_formulas():
    real, fake = np.random.default_rng(3).normal(size=(2, 3, 4, 4, 1)).astype("float32")
    assert float(sifa.fool(fake)) == pytest.approx(np.mean((fake - 1) ** 2), rel=1e-5)
    assert float(sifa.discern(real, fake)) == pytest.approx((np.mean((real - 1) ** 2) + np.mean(fake**2)) / 2, rel=1e-5)


def test_decay_is_the_gradient_of_half_the_squares(tiny):
    variables = tiny.segmenter.trainable_variables
    (gradient,) = sifa.decay([np.zeros(variables[0].shape, "float32")], variables)
    np.testing.assert_allclose(gradient, 1e-4 * np.asarray(variables[0].value), rtol=1e-6)


@pytest.fixture
def stored(batch):
    return np.random.default_rng(4).uniform(-0.9, 0.9, (2, *batch[0].shape)).astype("float32")


def recorded(algorithm, networks, a, one_hot, b, stored):
    """Losses and the seven gradients of an algorithm whose updates change no weight."""
    variables = [variable for network in vars(networks).values() for variable in network.variables]
    pools = (lambda fake: stored[0], lambda fake: stored[1])

    def step(a, one_hot, b):
        found = {}
        results = algorithm(networks, a, one_hot, b, *pools, found.__setitem__)
        return results, found

    return backend.compile_step(step, variables)(a, one_hot, b)


def test_both_ways_give_the_same_seven_gradients(tiny, batch, stored):
    (one, shared), (other, alone) = (
        recorded(way, tiny, *batch, stored) for way in (sifa.simultaneous, sifa.sequential)
    )
    assert list(alone) == ["generator", "target", "segmentation", "decoder", "source", "feature", "feature_low"]
    for name in alone:
        first, second = (np.concatenate([np.ravel(g) for g in found[name]]) for found in (shared, alone))
        assert np.linalg.norm(second) > 0
        assert np.linalg.norm(first - second) <= 1e-4 * np.linalg.norm(second), name
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)


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
    import keras

    start = np.random.default_rng(5).normal(size=(4, 3)).astype("float32")
    ours, theirs = keras.Variable(start), keras.Variable(start)
    mine, other = training.Adam([ours], 0.01, 0.5), keras.optimizers.Adam(0.01, 0.5, epsilon=1e-8)
    step = backend.compile_step(lambda gradient: mine.apply([gradient]) or {}, [ours, *mine.variables])
    for gradient in np.random.default_rng(6).normal(size=(5, 4, 3)).astype("float32"):
        step(gradient)
        other.apply([ops.convert_to_tensor(gradient)], [theirs])
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-5)
