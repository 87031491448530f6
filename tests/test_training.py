"""The training loop and its batches."""

import signal
import threading
import time

import keras
import numpy as np
import pytest

from lusbook import checkpoints
from lusbook.errors import Interrupted, LusbookError, OutOfTime
from lusbook.training import batch_indices, fit, iterations_per_epoch
from tests.helpers import signal_self


def training(stop=None):
    """Arguments of a training whose every iteration depends on the one before; ``stop`` is called in each step."""
    weight, pool = keras.Variable(np.ones(3, "float32")), np.zeros((2, 3), "float32")
    seen = []

    def step(number, batch):
        if stop:
            stop(number)
        weight.assign(weight * 0.9 + batch + pool[number % 2])
        pool[number % 2] = np.asarray(weight.value) / 7
        return {"loss": float(np.sum(pool))}

    def batch(number):
        return number, np.random.default_rng(number).random(3, "float32")

    arguments = {"step": step, "batch": batch, "iterations": 12, "label": "trial"}
    return weight, pool, seen, arguments | {"state": [weight], "pools": [pool], "after": seen.append}


def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path, capsys):
    weight, pool, _, arguments = training()
    history = fit(**arguments)

    def late(number):
        if number == 6:
            signal_self(signal.SIGTERM)  # to this thread: os.kill may reach it only after training

    kept = {"folder": tmp_path, "key": "run"}
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="^trial: interrupted at iteration 7 of 12; the same command goes on from"):
        fit(**training(late)[3], **kept)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    resumed_weight, resumed_pool, seen, arguments = training()
    assert fit(**arguments, **kept) == history
    np.testing.assert_array_equal(resumed_weight, weight)
    np.testing.assert_array_equal(resumed_pool, pool)
    assert seen == [8, 9, 10, 11, 12]
    assert "trial  goes on from iteration 7/12" in capsys.readouterr().err


def test_ctrl_c_in_the_last_iteration_leaves_a_whole_checkpoint(tmp_path):
    def late(number):
        if number == 11:
            signal_self(signal.SIGINT)

    with pytest.raises(Interrupted, match="at iteration 12 of 12"):
        fit(**training(late)[3], folder=tmp_path)
    *_, seen, arguments = training()
    assert len(fit(**arguments, folder=tmp_path)) == 12
    assert seen == []


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice(number):
        if number == 3:
            signal_self(signal.SIGINT)
            signal_self(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(**training(twice)[3], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_deadline_stops_between_iterations(tmp_path):
    with pytest.raises(OutOfTime, match="trial: time is up at iteration 0 of 12"):
        fit(**training()[3], folder=tmp_path, deadline=time.monotonic() - 1)
    with pytest.raises(OutOfTime, match=r"time is up at iteration \d+ of 12; nothing is kept"):
        fit(**training(lambda _: time.sleep(0.05))[3], deadline=time.monotonic() + 0.1)
    with pytest.raises(OutOfTime):
        fit(**training(lambda _: time.sleep(0.05))[3], folder=tmp_path, deadline=time.monotonic() + 0.1)
    iteration, _, history = checkpoints.load(tmp_path, "")
    assert 0 < iteration == len(history) < 12


def test_when_checkpoints_are_written_changes_nothing(tmp_path, monkeypatch):
    histories = []
    for seconds in ("0", "60"):
        monkeypatch.setenv("LUSBOOK_CHECKPOINT_SECONDS", seconds)
        histories.append(fit(**training()[3], folder=tmp_path / seconds))
    assert histories[0] == histories[1]
    assert sorted(path.name[-6:-4] for path in (tmp_path / "0").iterdir()) == ["11", "12"]
    assert not (tmp_path / "60").exists()


def test_a_thread_trains_without_handlers():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(**training()[3])))
    thread.start()
    thread.join()
    assert len(found[0]) == 12


def test_bfloat16_state_comes_back(tmp_path):
    variable = keras.Variable(np.array([1.5, -2.25], "float32"), dtype="bfloat16")
    checkpoints.save(tmp_path, "", 1, [np.asarray(variable.value)], [{"iteration": 1, "loss": 0.5}])
    variable.assign(variable * 0)
    fit(None, None, 1, state=[variable], folder=tmp_path)
    assert np.asarray(variable.value).astype("float32").tolist() == [1.5, -2.25]


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


def test_losses_up_to_the_broken_one_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBOOK_CHECKPOINT_SECONDS", "0")

    def step(i):
        return {"a": i / 2, "b": np.inf if i == 2 else 1.0}

    with pytest.raises(LusbookError, match=r"'b' is inf at iteration 3; the losses up to there are in .*history\.csv"):
        fit(step, lambda i: (i,), 5, label="trial", folder=tmp_path)
    assert (tmp_path / "history.csv").read_text() == "iteration,a,b\n1,0,1\n2,0.5,1\n3,1,inf\n"
    assert checkpoints.load(tmp_path, "")[0] == 2
