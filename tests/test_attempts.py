"""Attempts to adapt better: sources, statistics of the target, pooling."""

import numpy as np
import pandas as pd
import pytest

from lusbook import attempts, trials
from lusbook.cohort import Cohort
from lusbook.settings import make_settings
from lusbook.video import Clips
from tests.helpers import untraced


def test_shares_of_area_and_of_probability():
    fans = np.ones((3, 4, 4), bool)
    fans[:, :2] = False
    found = np.zeros((3, 4, 4))
    found[0, 2:], found[1, 2], found[2, :2] = 0.6, 0.4, 1.0
    clips = type("Clips", (), {"fans": fans, "clip": np.array([0, 0, 0])})
    scores = attempts.pool(found, clips, 0.5).iloc[0]
    assert scores["area, median"] == 0 and scores["area, 75th percentile"] == 0.5
    assert scores["probability, 75th percentile"] == pytest.approx((0.2 + 0.6) / 2)


def source(size=32, n=6):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    fan = (np.hypot(y + 12, x - size / 2 + 0.5) < 42) & (np.abs(np.arctan2(x - size / 2 + 0.5, y + 12)) < 0.6)
    images = np.where(fan, rng.integers(60, 200, (n, size, size)), 0).astype(np.uint8)
    masks = fan & (np.abs(x - 20) < 2) & (np.arange(n) % 2 == 0)[:, None, None]
    return Cohort("clinic", images, masks, np.repeat(["a", "b", "c"], 2)[:n], np.repeat([0, 1, 2], 2)[:n])


def test_source_of_an_attempt():
    cohort = source()
    positive = attempts.prepare(attempts.ATTEMPTS["SIFA, source frames with B-lines only"], cohort)
    assert len(positive) == 3 and positive.masks.any(axis=(1, 2)).all()
    lines = attempts.prepare(attempts.ATTEMPTS["SIFA, scan lines"], cohort)
    assert lines.images.shape == cohort.images.shape
    assert lines.masks.any(axis=(1, 2)).tolist() == cohort.masks.any(axis=(1, 2)).tolist()
    assert attempts.prepare(attempts.ATTEMPTS["SIFA"], cohort) is cohort


def test_statistics_of_the_target_are_those_that_training_would_see():
    settings = make_settings("smoke", unet_dropout=0.0)
    with untraced():
        network = trials.unet_network(settings.unet_width, 0.1, settings.seed, settings.precision)
        frames = np.random.default_rng(0).integers(0, 255, (trials.INFERENCE_BATCH, 32, 32), dtype=np.uint8)
        attempts.take_statistics(network, settings, frames)
        first = [variable for variable in network.weights if variable.path.endswith("moving")][0]
        kernel = np.asarray(network.weights[0].value)
        images = trials.network_images(frames)
    padded = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    out = np.einsum("nhwij,ijc->nhwc", windows, kernel[:, :, 0])
    np.testing.assert_allclose(np.asarray(first.value)[0], out.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(np.asarray(first.value)[1], out.var(axis=(0, 1, 2)), rtol=1e-2)


def test_attempts_share_networks_where_only_statistics_differ():
    shared = attempts.networks()
    assert sorted(name for names in shared for name in names) == sorted(attempts.ATTEMPTS)
    assert ["U-Net, intensity 0.5", "U-Net, intensity 0.5, target statistics"] in shared
    assert ["SIFA"] in shared and len(shared) == len(attempts.ATTEMPTS) - 3


def test_every_attempt_is_scored_by_networks_of_its_halves(monkeypatch, tmp_path):
    """Networks are stand-ins; which frames each was shown is what is tested."""
    cohort, n = source(), 8
    table = pd.DataFrame({"clip": list("abcdefgh"), "patient": list("pqrstuvw"), "known": True, "b_lines": False})
    table = table.assign(condition="covid19")
    frames = np.repeat(np.arange(n, dtype=np.uint8), 2)[:, None, None] + np.zeros((2 * n, 32, 32), np.uint8)
    clips = Clips(table, frames, np.ones(frames.shape, bool), np.repeat(np.arange(n), 2), frames)
    trained, statistics = {}, []

    def train(arm, settings, cohorts, adapted, name, **keep):
        trained[name] = sorted({int(frame[0, 0]) for frame in adapted})
        return type("Network", (), {"routes": {"direct": None}}), []

    monkeypatch.setattr(attempts.arms, "train", train)
    monkeypatch.setattr(attempts.video, "load_clips", lambda *_, cut: clips)
    monkeypatch.setattr(
        attempts, "take_statistics", lambda network, settings, frames: statistics.append(frames[0, 0, 0])
    )
    monkeypatch.setattr(attempts.trials, "probabilities", lambda route, frames: frames / 255)
    found = attempts.run_attempts(make_settings("smoke"), cohort, table, folder=tmp_path)["tables"]["attempts"]
    halves = {half: [k for k in range(n) if k % 2 == (half == "B")] for half in "AB"}
    assert trained["SIFA A"] == halves["A"] and trained["SIFA B"] == halves["B"] and trained["U-Net"] == []
    assert statistics == [0, 1] * 3
    rows = found.groupby("attempt").size()
    assert rows["U-Net"] == n and rows["SIFA"] == rows["U-Net, target statistics"] == 2 * n
    assert set(attempts.ATTEMPTS) | set(attempts.BASELINES.values()) == set(rows.index)
