"""Moving average, snapshots and the criteria that choose among them."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score

from lusbook import checkpoints, selection
from lusbook.errors import LusbookError


def test_average_follows_its_recursion():
    weight = keras.Variable(np.zeros(3, "float32"))
    averages, follow = selection.make_average([weight], 0.98)
    expected, rng = np.zeros(3), np.random.default_rng(0)
    for iteration in range(1, 101):
        weight.assign(rng.normal(size=3).astype("float32"))
        follow(iteration)
        if iteration % selection.EVERY == 0:
            updates = iteration // selection.EVERY
            decay = min(0.98**selection.EVERY, updates / (updates + 9))
            expected = decay * expected + (1 - decay) * np.asarray(weight.value)
    np.testing.assert_allclose(averages[0].value, expected, rtol=1e-5)


def test_average_of_constant_weights_is_their_value():
    weight = keras.Variable(np.full(2, 5.0, "float32"))
    averages, follow = selection.make_average([weight], 0.999)
    for iteration in range(1, 51):
        follow(iteration)
    np.testing.assert_allclose(averages[0].value, 5.0, rtol=1e-6)


@pytest.mark.parametrize(("iterations", "count"), [(450, 5), (10_000, 10), (2, 2), (3, 10)])
def test_the_last_snapshot_is_the_end_of_training(iterations, count):
    taken = selection.snapshot_iterations(iterations, count)
    assert taken[-1] == iterations
    assert taken[0] >= 1
    assert len(taken) == min(count, iterations)


def test_information_of_certain_predictions_is_their_mutual_information():
    rng = np.random.default_rng(0)
    hard = (rng.random(1000) < 0.1).astype(float)
    assert selection.information(hard) == pytest.approx(mutual_info_score(hard, hard), rel=1e-6)


def test_information_prefers_certain_and_varied_predictions():
    hard = np.repeat([0.0, 1.0], 50)
    unsure = np.repeat([0.3, 0.7], 50)
    nothing, everywhere = np.zeros(100), np.full(100, 0.5)
    values = [selection.information(p) for p in (hard, unsure, nothing, everywhere)]
    assert values[0] > values[1] > 0
    assert values[2:] == pytest.approx([0, 0], abs=1e-9)


def test_the_criterion_sees_no_label_and_the_oracle_does():
    sure = {10: 0.5, 20: 0.7, 30: 0.9}  # predictions grow better, then worse, and ever surer
    rows = {"iteration": list(sure), "dice_cap": [0.2, 0.8, 0.5], "dice_covid": [0.8, 0.2, 0.5]}
    rows["information"] = [selection.information(np.repeat([1 - share, share], 10)) for share in sure.values()]
    assert selection.choose(pd.DataFrame(rows), "cap") == {"label-free": 30, "oracle": 20}
    assert selection.choose(pd.DataFrame(rows), "covid") == {"label-free": 30, "oracle": 10}


def test_of_equal_snapshots_the_earliest_is_chosen():
    table = pd.DataFrame({"iteration": [10, 20], "information": [0.1, 0.1], "dice_cap": [0.5, 0.5]})
    assert selection.choose(table, "cap") == {"label-free": 10, "oracle": 10}


def test_snapshots_come_back_and_a_damaged_one_is_named(tmp_path):
    weights = [np.arange(4, dtype="float32"), np.ones((2, 2), "float32")]
    checkpoints.save_snapshot(tmp_path, 90, weights)
    for one, other in zip(weights, checkpoints.load_snapshot(tmp_path, 90), strict=True):
        np.testing.assert_array_equal(one, other)
    path = next(tmp_path.glob("snapshot-*.npz"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LusbookError, match=r"snapshot-00000090\.npz: not readable"):
        checkpoints.load_snapshot(tmp_path, 90)
    checkpoints.remove(tmp_path)
    assert not list(tmp_path.iterdir())
