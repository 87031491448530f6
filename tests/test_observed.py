"""Measures of cohorts, folds and patients, their intervals and the tables of the chapter."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lusbook import observed
from lusbook.diversity import describe_masks, variability
from lusbook.errors import LusbookError
from lusbook.spread import FEATURES, TEXTURE, effective_frames, measure_frames, standardise
from tests.test_spread import cohort_of, stripes

N, EACH = 12, 4


@pytest.fixture(scope="module")
def tables():
    """Described images and frames of two cohorts of three patients, and the effective numbers of frames."""
    cohorts = [cohort_of(stripes(N, seed), name, seed=seed) for seed, name in enumerate(("covid", "cap"))]
    described = pd.concat([describe_masks(cohort) for cohort in cohorts], ignore_index=True)
    frames = pd.concat([measure_frames(cohort) for cohort in cohorts], ignore_index=True)
    space = standardise(frames, np.arange(len(frames)))
    effective = effective_frames(frames, np.concatenate([cohort.images for cohort in cohorts]), space)
    return described, frames.assign(far_covid=1.0, far_cap=2.0), effective


@pytest.fixture(scope="module")
def frames(tables):
    return observed.gather(*tables[:2])


@pytest.fixture(scope="module")
def by_patient(frames, tables):
    return observed.measure_groups(frames, "patient", tables[2])


def test_every_measure_is_defined_with_a_unit():
    table = observed.definitions()
    assert len(table) == len(observed.MEASURES) and (table != "").all(axis=None) and table.index.is_unique
    assert set(observed.STATISTICS) | {"annotators", "vendi_images", "vendi_features"} == set(observed.MEASURES)
    kinds = observed.CONSISTENCY, observed.DIVERSITY, observed.DISTANCE
    assert sum((list(observed.measure_titles(kind)) for kind in kinds), []) == list(observed.measure_titles())


@pytest.mark.parametrize("by", ["cohort", "fold", "patient"])
def test_groups_agree_with_variability(frames, tables, by):
    groups, expected = observed.measure_groups(frames, by, tables[2]), variability(tables[0], by)
    both = ["place", "size", "direction", "brightness", "image_distance_within", "image_distance_between"]
    np.testing.assert_allclose(groups[both], expected[both], rtol=1e-6, atol=1e-6)
    assert list(groups.columns) == [*expected.columns[: expected.columns.get_loc("images") + 1], *observed.MEASURES]
    assert groups["annotators"].isna().all() and groups["label_truth_dice"].isna().all()


def test_spread_in_several_columns_is_the_root_of_their_summed_variances(frames, by_patient):
    rows = frames[frames["patient"] == "cap-1"]
    row = by_patient.set_index("patient").loc["cap-1"]
    assert row["texture"] == pytest.approx(np.sqrt(sum(rows[name].var() for name in TEXTURE)))
    assert row["features"] == pytest.approx(np.sqrt(rows[observed.SPACE].var().sum()))
    assert row["border_auroc"] == pytest.approx(rows["border_auroc"].mean())
    # All images together, in units of their own SD: 1, but for the degree of freedom.
    assert observed._total_sd(frames[observed.SPACE].to_numpy()) == pytest.approx(np.sqrt(2 * N / (2 * N - 1)))


def test_circular_spread_agrees_with_scipy_and_ignores_the_sense():
    angles = np.random.default_rng(0).normal(85, 12, 50)
    wrapped = (angles + 90) % 180 - 90
    expected = np.degrees(stats.circstd(np.radians(wrapped), high=np.pi / 2, low=-np.pi / 2))
    assert observed._circular_sd(wrapped[:, None]) == pytest.approx(expected)
    assert observed._circular_sd(angles[:, None]) == pytest.approx(expected)
    assert observed._circular_sd(np.array([[10.0], [np.nan], [10.0]])) == pytest.approx(0, abs=1e-6)
    assert np.isnan(observed._circular_sd(np.array([[10.0], [np.nan]])))


def test_annotators_are_averaged_over_the_frames_they_drew(frames, tables):
    agreement = pd.DataFrame({"cohort": "cap", "patient": ["cap-0", "cap-0", "cap-1"], "annotators": [0.2, 0.4, 0.9]})
    groups = observed.measure_groups(frames, "patient", tables[2], agreement).set_index("patient")
    assert groups.loc["cap-0", "annotators"] == pytest.approx(0.3) and np.isnan(groups.loc["covid-0", "annotators"])
    cohort = observed.measure_groups(frames, "cohort", tables[2], agreement).set_index("cohort")
    assert cohort.loc["cap", "annotators"] == pytest.approx(0.5)


def test_distinct_frames_are_those_of_the_group(by_patient, tables):
    effective = tables[2].set_index("patient")
    for row in by_patient.itertuples():
        assert row.vendi_images == effective.loc[row.patient, "vendi_images"]


def test_means_over_patients_and_their_difference(by_patient):
    means = observed.patient_means(by_patient, 300).set_index(["measure", "cohort"])
    values = {c: by_patient.loc[by_patient["cohort"] == c, "place"] for c in ("covid", "cap")}
    row = means.loc[("place", "cap")]
    assert row["mean"] == pytest.approx(values["cap"].mean()) and row["n"] == 3
    assert values["cap"].min() <= row["low"] <= row["mean"] <= row["high"] <= values["cap"].max()
    difference = means.loc[("place", "difference")]
    assert difference["mean"] == pytest.approx(values["cap"].mean() - values["covid"].mean()) and difference["n"] == 6
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert means.loc[("annotators", "difference"), ["mean", "low", "high"]].isna().all()
    constant = means.loc[("far_cap", "covid"), ["mean", "low", "high"]]
    assert constant.tolist() == [2, 2, 2]


def test_one_patient_has_a_mean_and_no_interval(by_patient):
    means = observed.patient_means(by_patient.iloc[[0, 3, 4]], 100).set_index(["measure", "cohort"])
    assert np.isfinite(means.loc[("place", "covid"), "mean"]) and np.isnan(means.loc[("place", "covid"), "low"])
    assert np.isnan(means.loc[("place", "difference"), "low"])


def test_intervals_of_a_cohort_draw_patients(frames, tables):
    by_cohort = observed.measure_groups(frames, "cohort", tables[2])
    found = observed.cohort_intervals(frames, by_cohort, 200).set_index(["measure", "cohort"])
    assert found.loc[("place", "cap"), "value"] == pytest.approx(by_cohort.set_index("cohort").loc["cap", "place"])
    means = frames[frames["cohort"] == "cap"].groupby("patient")["border_auroc"].mean()
    row = found.loc[("border_auroc", "cap")]
    assert means.min() <= row["low"] <= row["value"] <= row["high"] <= means.max()
    assert found.loc[("vendi_images", "cap"), ["low", "high"]].isna().all()
    assert found.loc[("label_truth_dice", "cap"), ["value", "low"]].isna().all()


def test_variance_parts_into_within_and_between(frames):
    shifted = frames.copy()
    number = shifted["patient"].str[-1].astype(int)
    shifted["centroid_x"], shifted["centroid_y"] = np.tile([-0.1, 0.1], N) + 10 * number, 0.0
    found = observed.within_between(shifted).set_index(["measure", "cohort"]).loc[("place", "cap")]
    assert found["within"] == pytest.approx(np.std([-0.1, 0.1] * (EACH // 2), ddof=1))
    assert found["between"] == pytest.approx(10)
    assert found["share_between"] == pytest.approx(100 / (100 + found["within"] ** 2)) and found["n"] == 3


def distances_of(value, shuffled):
    rows = [("cohorts", value)] + [("shuffled", x) for x in shuffled]
    rows += [(kind, x) for kind in ("halves", "covid", "cap") for x in (1.0, 2.0, 6.0)] + [("fold 0", np.nan)]
    table = pd.DataFrame(rows, columns=["kind", "mmd"])
    return table.assign(a_distance=table["mmd"], frechet=table["mmd"], a=1, b=2)


def test_p_is_the_share_of_divisions_as_far_apart():
    found = observed.distance_summary(distances_of(3.0, [3.0, 4.0, 1.0, 0.0])).set_index("distance").loc["mmd"]
    assert (found["p"], found["least_p"], found["covid"]) == (0.5, 0.25, 2)
    assert (found["covid_low"], found["covid_high"]) == (1, 6)
    greatest = observed.distance_summary(distances_of(9.0, [3.0, 4.0, 1.0, 0.0]))
    assert (greatest["p"] == 0.25).all()  # no division reached it: it counts as one
    assert observed.distance_summary(distances_of(np.nan, [1.0]))["p"].isna().all()


def test_tables_show_numbers_with_units_and_n(frames, tables, by_patient):
    means = observed.patient_means(by_patient, 100)
    text = observed.side_by_side(means, "mean")
    assert list(text.columns) == ["COVID-19 (n = 3)", "CAP (n = 3)", "CAP less COVID-19 (n = 6)"]
    mean, low, high = means.set_index(["measure", "cohort"]).loc[("border_auroc", "cap"), ["mean", "low", "high"]]
    assert text.loc["contrast at the border (AUROC)", "CAP (n = 3)"] == f"{mean:.2f} ({low:.2f} to {high:.2f})"
    assert text.loc["two annotators (Dice)", "CAP (n = 3)"] == "–"
    some = observed.side_by_side(means[means["measure"] == "place"], "mean")
    assert some.index.tolist() == ["place (share of side)"]
    by_fold = observed.groups_table(observed.measure_groups(frames, "fold", tables[2]))
    assert by_fold.columns[1] == "COVID-19, fold 1 (4 images)" and by_fold.shape == (len(observed.MEASURES), 6)
    shares = observed.within_between_table(observed.within_between(frames))
    assert shares["patients"].tolist() == [3] * 8
    distances = distances_of(3.0, [3.0, 1.0])
    table = observed.distances_table(observed.distance_summary(distances))
    assert table.loc["MMD, squared (no unit)"].tolist() == ["3.00", "0.500", *["2.00 (1.00 to 6.00)"] * 3]
    assert observed.fold_distances_table(distances).loc["fold 0"].tolist() == [1, 2, "–", "–", "–"]


def test_tables_of_other_images_are_refused(tables):
    described, frames, effective = tables
    with pytest.raises(LusbookError, match="the same images, received 24 and 23, 23 in common"):
        observed.gather(described, frames[1:])
    with pytest.raises(LusbookError, match="received 24 and 24, 0 in common"):
        observed.gather(described, frames.assign(patient="someone" + frames["patient"]))
    with pytest.raises(LusbookError, match="expected one of .* received 'frame'"):
        observed.measure_groups(observed.gather(described, frames), "frame", effective)


def test_all_twenty_measures_are_in_one_space(frames):
    assert len(FEATURES) == 20 and list(frames[observed.SPACE].columns) == [f"space_{name}" for name in FEATURES]
