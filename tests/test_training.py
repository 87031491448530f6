"""The training loop and its batches."""

import numpy as np
import pytest

from lusbook.errors import LusbookError
from lusbook.training import batch_indices, fit, iterations_per_epoch


@pytest.mark.parametrize(("n", "size"), [(16, 4), (17, 4), (5, 5)])
def test_an_epoch_visits_no_image_twice(n, size):
    steps = iterations_per_epoch(n, size)
    seen = np.concatenate([batch_indices(n, size, i, (0,)) for i in range(steps)])
    assert len(seen) == steps * size == len(set(seen.tolist()))


def test_batches_depend_on_seed_and_epoch_only():
    one = [batch_indices(32, 8, i, (1, 2)).tolist() for i in range(8)]
    assert one == [batch_indices(32, 8, i, (1, 2)).tolist() for i in range(8)]
    assert one[:4] != one[4:]
    assert one != [batch_indices(32, 8, i, (1, 3)).tolist() for i in range(8)]


def test_a_small_cohort_fills_a_batch():
    chosen = batch_indices(3, 8, 0, (0,))
    assert len(chosen) == 8
    assert set(chosen.tolist()) == {0, 1, 2}


def test_fit_keeps_every_loss_and_shows_progress(capsys):
    history = fit(lambda x: {"loss": x}, lambda iteration: (iteration * 0.5,), 3, label="run 1 of 2")
    assert history == [{"iteration": i + 1, "loss": i * 0.5} for i in range(3)]
    assert "run 1 of 2  iteration 3/3  loss 1.000  left 0 s" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(LusbookError, match="trial: loss 'b' is nan at iteration 3"):
        fit(lambda i: {"a": 0.0, "b": np.nan if i == 2 else 1.0}, lambda i: (i,), 5, label="trial")
