"""The annotator: every fault alone, none at consistency 1."""

from types import SimpleNamespace

import numpy as np
import pytest

from lusbook import annotator
from lusbook.scanner import SAMPLES
from tests.helpers import fixed_patient

CALM = np.zeros(5)  # style without habits


@pytest.fixture(scope="module")
def p():
    return fixed_patient(rib_offset=0)


def lines(p, centres=(0.0,), half_width=2.0, contrast=12.0, false=()):
    """Straight B-lines, and Z-lines."""

    def edges(middles):
        middles = np.asarray(middles, float)[:, None] + np.zeros(SAMPLES)
        return middles - half_width, middles + half_width

    (left, right), (false_left, false_right) = edges(centres), edges(false)
    return SimpleNamespace(
        number=np.arange(len(centres)),
        left=left,
        right=right,
        contrast=np.broadcast_to(np.asarray(contrast, float), (len(centres),)).copy(),
        begin=np.full(len(p.pixel_z), 20.0),
        false_left=false_left,
        false_right=false_right,
        faintest=4.0,
    )


def truth_of(p, drawable):
    return annotator.draw(p, drawable.left, drawable.right, drawable.begin, np.full(len(drawable.left), p.depth + 1))


def labels(p, drawable, consistency, style=CALM, n=20):
    truth = truth_of(p, drawable)
    return [annotator.label(p, drawable, truth, style, np.random.default_rng(k), consistency) for k in range(n)]


def degrees(p, mask):
    """Angles of a mask's pixels."""
    return p.pixel_angle[mask[p.inside]]


def test_the_sure_annotator_draws_the_truth(p):
    drawable = lines(p, (-6, 6), false=(0,))
    for label in labels(p, drawable, 1.0, style=np.ones(5)):
        assert np.array_equal(label, truth_of(p, drawable))


def test_a_drawing_lies_between_its_edges_and_depths(p):
    mask = annotator.draw(
        p, np.full((1, SAMPLES), -2.0), np.full((1, SAMPLES), 3.0), np.full(len(p.pixel_z), 30.0), [60]
    )
    inside = mask[p.inside]
    assert degrees(p, mask).min() > -2 and degrees(p, mask).max() < 3
    assert p.pixel_z[inside].min() > 30 and p.pixel_z[inside].max() < 60
    missing = (p.pixel_angle > -2) & (p.pixel_angle < 3) & (p.pixel_z > 30) & (p.pixel_z < 60) & p.pixel_open & ~inside
    assert not missing.any()


@pytest.mark.parametrize(("habit", "wider"), [(1.0, True), (-1.0, False)])
def test_width_is_a_habit(p, habit, wider):
    drawable = lines(p)
    areas = [label.sum() for label in labels(p, drawable, 0.4, np.array([habit, -1, 0, -0.5, 0]))]
    assert (np.mean(areas) > truth_of(p, drawable).sum()) == wider


def test_edges_wander_with_inconsistency(p):
    drawable = lines(p)
    middles = [np.mean([np.std(np.nonzero(m)[1]) for m in labels(p, drawable, c)]) for c in (0.9, 0.5, 0.1)]
    agreement = [
        np.mean([(m & truth_of(p, drawable)).sum() / m.sum() for m in labels(p, drawable, c)]) for c in (0.9, 0.1)
    ]
    assert len(set(np.round(middles, 3))) == 3 and agreement[0] > agreement[1] + 0.05


def test_lines_are_drawn_too_short_by_habit(p):
    drawable = lines(p)
    lowest = [max(p.pixel_z[label[p.inside]]) for label in labels(p, drawable, 0.2, np.array([0, 1, 0, 0, 0]))]
    assert np.mean(lowest) < 0.75 * p.depth
    assert max(p.pixel_z[truth_of(p, drawable)[p.inside]]) > 0.98 * p.depth


def test_faint_lines_are_missed_and_the_clearest_never(p):
    drawable = lines(p, (-8, 8), contrast=(14, 4.5))
    found = labels(p, drawable, 0.2, np.array([0, 0, 1, 0, 0]))
    assert not any((degrees(p, label) > 4).any() for label in found)
    assert all((degrees(p, label) < -4).any() for label in found)
    careful = labels(p, lines(p, (-8, 8), contrast=(14, 13.5)), 0.2, np.array([0, 0, -1, 0, 0]))
    assert all((degrees(p, label) > 4).any() for label in careful)


def test_neighbours_are_merged(p):
    gap = [((np.abs(degrees(p, label)) < 0.3).any()) for label in labels(p, lines(p, (-2.6, 2.6), 1.5), 0.3)]
    apart = [((np.abs(degrees(p, label)) < 0.3).any()) for label in labels(p, lines(p, (-9, 9), 1.5), 0.3)]
    assert np.mean(gap) > 0.8 and not any(apart)


def test_comet_tails_are_taken_for_b_lines_sometimes(p):
    drawable = lines(p, (-8,), false=(8,))
    share = [
        np.mean([(degrees(p, m) > 4).any() for m in labels(p, drawable, c, np.array([0, 0, 0, 0, 1]), 40)])
        for c in (0.9, 0.1)
    ]
    assert share[0] < 0.2 < share[1] < 0.9


def test_no_drawing_is_empty_but_where_nothing_is(p):
    for label in labels(p, lines(p, half_width=0.4), 0.0, np.ones(5)):
        assert label.any()
    for label in labels(p, lines(p, (), false=(3,)), 0.0, np.ones(5)):
        assert not label.any()
