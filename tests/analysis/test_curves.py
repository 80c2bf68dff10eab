import re
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeops.analysis.curves import (
    TradeoffCurve,
    area_under,
    best_within,
    distance,
    mean_curve,
    mean_distance,
    pareto_front,
)

# Grid points, so that curves often share knots, repeat times, touch in one point or miss each other.
TIMES = st.integers(0, 12).map(lambda tick: tick / 4)
POINTS = st.lists(st.tuples(TIMES, st.floats(0, 1)), min_size=1, max_size=8)
CURVES = POINTS.map(lambda points: TradeoffCurve(*np.array(points).T))


def overlap(*curves: TradeoffCurve) -> tuple[float, float]:
    return max(curve.time[0] for curve in curves), min(curve.time[-1] for curve in curves)


def test_points_are_sorted_and_those_at_one_time_merged() -> None:
    curve = TradeoffCurve(np.array([2.0, 1.0, 2.0, 3.0]), np.array([0.5, 0.25, 0.75, 1.0]))
    np.testing.assert_array_equal(curve.time, [1, 2, 3])
    np.testing.assert_array_equal(curve.accuracy, [0.25, 0.625, 1.0])


def test_at_interpolates_and_is_nan_outside() -> None:
    curve = TradeoffCurve(np.array([1.0, 3.0]), np.array([0.5, 0.9]))
    np.testing.assert_allclose(curve.at([0.99, 1, 2, 2.5, 3, 3.01]), [np.nan, 0.5, 0.7, 0.8, 0.9, np.nan])


@pytest.mark.parametrize(
    ("time", "accuracy"),
    [([], []), ([1.0], [0.5, 0.6]), ([[1.0]], [[0.5]]), (1.0, 0.5), ([np.inf], [0.5]), ([1.0], [np.nan])],
)
def test_a_curve_refuses_what_is_no_curve(time: object, accuracy: object) -> None:
    with pytest.raises(ValueError, match="time and accuracy must be"):
        TradeoffCurve(np.array(time), np.array(accuracy))


def test_what_a_budget_affords_by_hand() -> None:
    time, accuracy = [0.4, 0.2, 0.8, 0.3], [0.9, 0.5, 0.8, 0.9]
    assert best_within(time, accuracy, 0.25) == 1
    assert best_within(time, accuracy, 0.3) == 3
    assert best_within(time, accuracy, 1) == 3  # neither the slowest that fits, nor the slower of two alike
    assert best_within(time, accuracy, 0.2) == 1
    assert best_within(time, accuracy, 0.199) is None
    # O's time over O's own is 1 up to the noise of timing.
    assert best_within([1.04], [0.9], 1) == 0
    assert best_within([1.06], [0.9], 1) is None


@given(CURVES, st.floats(0.01, 4))
def test_more_time_affords_no_less(curve: TradeoffCurve, budget: float) -> None:
    at = best_within(curve.time, curve.accuracy, budget)
    more = best_within(curve.time, curve.accuracy, 2 * budget)
    assert at is None or (more is not None and curve.accuracy[more] >= curve.accuracy[at])


def test_area_by_hand() -> None:
    curve = TradeoffCurve(np.array([0.2, 0.4, 0.8]), np.array([0.5, 0.9, 0.8]))
    assert area_under(curve) == pytest.approx(0.2 * 0.7 + 0.4 * 0.85 + 0.2 * 0.8)
    assert area_under(curve, until=0.3) == pytest.approx(0.1 * (0.5 + 0.7) / 2 / 0.3)
    assert area_under(curve, until=0.2) == 0
    single = TradeoffCurve(np.array([0.75]), np.array([0.8]))
    assert area_under(single) == pytest.approx(0.2)
    assert area_under(TradeoffCurve(np.array([1.01]), np.array([0.9]))) == 0


@given(CURVES)
def test_area_is_the_mean_over_the_times(curve: TradeoffCurve) -> None:
    times = np.linspace(0, 4, 4001)
    heights = np.where(times < curve.time[0], 0, curve.at(times.clip(curve.time[0], curve.time[-1])))
    assert area_under(curve, until=4) == pytest.approx(np.mean(heights), abs=2e-3)


def test_distance_by_hand() -> None:
    a = TradeoffCurve(np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.9, 0.9]))
    b = TradeoffCurve(np.array([0.5, 1.5, 4.0]), np.array([0.6, 0.8, 1.0]))
    # |a - b| at 0.5, 1, 1.5 and 2: 0.7-0.6, 0.9-0.7, 0.9-0.8, 0.9-0.84
    assert distance(a, b) == pytest.approx(20)


def test_curves_that_touch_in_one_time_have_a_distance() -> None:
    a = TradeoffCurve(np.array([0.0, 1.0]), np.array([0.5, 0.75]))
    point = TradeoffCurve(np.array([1.0]), np.array([0.5]))
    assert distance(a, point) == distance(point, a) == 25


def test_curves_that_share_no_time_have_none_and_warn() -> None:
    a = TradeoffCurve(np.array([0.0, 0.25]), np.array([0.5, 0.75]))
    b = TradeoffCurve(np.array([0.5]), np.array([0.5]))
    with pytest.warns(UserWarning, match=re.escape("one ends at 0.25, the other begins at 0.5")):
        assert np.isnan(distance(a, b))


@given(CURVES, CURVES)
def test_distance_is_the_largest_difference_of_a_dense_sample(a: TradeoffCurve, b: TradeoffCurve) -> None:
    start, end = overlap(a, b)
    assume(start <= end)
    # The knots lie on quarters, and so in this grid: the sample holds the maximum wherever theory puts it.
    time = np.linspace(start, end, 1 + 64 * round(4 * (end - start)))
    expected = 100 * np.abs(a.at(time) - b.at(time)).max()
    assert distance(a, b) == pytest.approx(expected, abs=1e-9)


@given(CURVES, CURVES)
def test_distance_is_symmetric_and_zero_on_itself(a: TradeoffCurve, b: TradeoffCurve) -> None:
    with warnings.catch_warnings(action="ignore"):
        np.testing.assert_equal(distance(a, b), distance(b, a))
    assert distance(a, a) == 0


@given(CURVES, CURVES, CURVES)
def test_triangle_inequality_where_the_middle_curve_covers_the_others(
    a: TradeoffCurve, b: TradeoffCurve, c: TradeoffCurve
) -> None:
    start, end = overlap(a, b)
    assume(start <= end and c.time[0] <= start and end <= c.time[-1])
    assert distance(a, b) <= distance(a, c) + distance(c, b) + 1e-9


@given(CURVES, CURVES, st.floats(0.1, 10))
def test_distance_does_not_depend_on_the_unit_of_time(
    a: TradeoffCurve, b: TradeoffCurve, unit: float
) -> None:
    start, end = overlap(a, b)
    assume(start <= end)
    a_scaled, b_scaled = (TradeoffCurve(unit * curve.time, curve.accuracy) for curve in (a, b))
    assert distance(a_scaled, b_scaled) == pytest.approx(distance(a, b), abs=1e-9)


def test_mean_distance_of_a_hand_worked_pair() -> None:
    # The difference goes 0.1 -> -0.1 -> -0.1: two triangles of half a unit each, then a rectangle of one.
    a = TradeoffCurve([0, 1, 2], [0.6, 0.5, 0.7])
    b = TradeoffCurve([0, 1, 2], [0.5, 0.6, 0.8])
    assert mean_distance(a, b) == pytest.approx(100 * (0.5 * 0.1 + 0.1) / 2)


@given(CURVES, CURVES)
def test_mean_distance_is_a_fine_sums_limit(a: TradeoffCurve, b: TradeoffCurve) -> None:
    start, end = overlap(a, b)
    assume(start < end)
    times = np.linspace(start, end, 20_001)
    difference = np.abs(a.at(times) - b.at(times))
    assert mean_distance(a, b) == pytest.approx(100 * difference.mean(), abs=0.05)
    assert mean_distance(a, b) <= distance(a, b) + 1e-9
    assert mean_distance(a, b) == pytest.approx(mean_distance(b, a), abs=1e-9)


def test_mean_distance_at_a_single_common_time_and_at_none() -> None:
    a, b = TradeoffCurve([0, 1], [0.5, 0.6]), TradeoffCurve([1, 2], [0.9, 0.9])
    assert mean_distance(a, b) == pytest.approx(30)
    with pytest.warns(UserWarning, match="share no time"):
        assert np.isnan(mean_distance(a, TradeoffCurve([5], [0.9])))


def test_mean_curve_of_two_hand_worked_runs() -> None:
    runs = [TradeoffCurve([0, 2], [0.5, 0.7]), TradeoffCurve([1, 3], [0.8, 1.0])]
    time, accuracy, low, high = mean_curve(runs)
    assert time.tolist() == [1, 2]
    assert accuracy == pytest.approx([0.7, 0.8])
    # Accuracies 0.6 and 0.8: SD 0.1414, and t with one degree of freedom is 12.706.
    assert (high - accuracy)[0] == pytest.approx(12.7062 * np.sqrt(0.02) / np.sqrt(2), rel=1e-4)
    assert accuracy - low == pytest.approx(high - accuracy)


def test_the_mean_of_one_run_is_that_run_without_a_band() -> None:
    time, accuracy, low, high = mean_curve([TradeoffCurve([0, 2], [0.5, 0.7])])
    assert (time.tolist(), accuracy.tolist()) == ([0, 2], [0.5, 0.7])
    assert np.isnan([low, high]).all()


def test_the_mean_of_runs_that_share_no_time_is_empty() -> None:
    with pytest.warns(UserWarning, match="share no time"):
        assert mean_curve([TradeoffCurve([0], [0.5]), TradeoffCurve([1], [0.5])]).time.size == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15))
def test_the_pareto_front_by_brute_force(points: list[tuple[int, int]]) -> None:
    time, accuracy = np.array(points).reshape(-1, 2).T
    front = [points[i] for i in pareto_front(time, accuracy)]
    beaten = {p for p in points for q in points if q != p and q[0] <= p[0] and q[1] >= p[1]}
    assert front == sorted(set(points) - beaten)
