"""Statistics of batch normalisations, recomputed in a small SIFA, beside plain NumPy; training does not see them."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from lusbook import selection, sifa, trials
from lusbook.cohort import network_images
from lusbook.norms import BatchNorm
from lusbook.settings import make_settings
from tests.helpers import untraced


def test_inference_has_the_moments_of_translated_source_and_target():
    networks = sifa.build_networks(16, 0.0625, seed=1)
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-0.9, high, (n, 16, 16, 1)).astype("float32") for n, high in ((40, 0.9), (33, 0.1)))
    norms = [layer for layer in networks.encoder.layers if isinstance(layer, BatchNorm)]
    trials.refresh_statistics(SimpleNamespace(generator=networks.generator, encoder=networks.encoder), a, b)
    seen = keras.Model(networks.encoder.inputs[0], [norm.input for norm in norms])
    moments = []
    for images in (np.asarray(networks.generator(a)), b):
        full = [images[:32], np.resize(images[32:], (32, 16, 16, 1))]  # the rest, over and over
        batches = [[np.asarray(x, "float64") for x in seen(part, training=True)] for part in full]
        means = [np.concatenate([x.mean((0, 1, 2)) for x in batch]) for batch in batches]
        variances = [np.concatenate([x.var((0, 1, 2), ddof=1) for x in batch]) for batch in batches]
        squares = [variance + mean**2 for mean, variance in zip(means, variances, strict=True)]
        moments.append([np.mean(means, axis=0), np.mean(squares, axis=0)])
    mean, square = np.mean(moments, axis=0)
    found = np.concatenate([np.asarray(norm.moving.value) for norm in norms], axis=-1)
    assert len(norms) > 20 and found.shape[1] == len(mean)
    np.testing.assert_allclose(found[0], mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[1], square - mean**2, rtol=1e-3, atol=1e-6)


def test_losses_of_training_do_not_depend_on_the_statistics(tmp_path, monkeypatch):
    settings = make_settings("smoke", image_size=16, sifa_iterations=2, sifa_snapshots=2)
    a, b = np.random.default_rng(0).integers(0, 255, (2, 3, 16, 16), dtype=np.uint8)
    source, b = SimpleNamespace(images=a, masks=a > 128), network_images(b)
    found, refresh, times = [], trials.refresh_statistics, []

    def refreshed(*arguments):
        times.append(1)
        refresh(*arguments)

    for number, replaced in enumerate((refreshed, lambda *_: None)):
        monkeypatch.setattr(trials, "refresh_statistics", replaced)
        trials.sifa_network.cache_clear()
        with untraced():
            network, history = trials.adapt(source, b, settings, (0,), folder=tmp_path / str(number), key="", label="")
        trained = [v for name in ("generator", "encoder") for v in getattr(network, name).trainable_variables]
        moving = [layer.moving for layer in network.encoder.layers if isinstance(layer, BatchNorm)]
        found.append((history, [np.asarray(v.value) for v in trained], [np.asarray(v.value) for v in moving]))
        trials.sifa_network.cache_clear()
    assert len(times) == len(selection.snapshot_iterations(2, 2)) == 2
    with_it, without = found
    assert with_it[0] == without[0]
    for one, other in zip(with_it[1], without[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(np.array_equal(one, other) for one, other in zip(with_it[2], without[2], strict=True))


@pytest.mark.parametrize(
    ("n", "count", "places"), [(3, 5, [0, 1, 2]), (5, 5, range(5)), (9, 3, [0, 4, 8]), (4, 1, [0])]
)
def test_images_are_evenly_spread(n, count, places):
    np.testing.assert_array_equal(trials.evenly(np.arange(n), count), places)
