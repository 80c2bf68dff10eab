import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeops.curves import TradeoffCurve, distance, read_curve
from pipeops.errors import PipeOpsError

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


HEADER = "inference,threshold,accuracy,time_ms,time_relative,mean_exit_layer,flops_relative\n"
ROWS = (
    ",0.5,0.75,3.0,0.3,2.0,0.33\n"
    ",0.9,0.875,6.0,0.6,4.0,0.66\n"
    "Q,0.5,0.5,1.0,0.1,2.0,0.33\n"
    "LQ,0.5,0.5,0.5,0.05,2.0,0.33\n"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "seed1.csv"
    path.write_text(text)
    return path


def test_read_curve_takes_relative_time_and_accuracy_of_the_wanted_rows(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + ROWS)
    raw = read_curve(path)
    np.testing.assert_array_equal(raw.time, [0.3, 0.6])
    np.testing.assert_array_equal(raw.accuracy, [0.75, 0.875])
    np.testing.assert_array_equal(read_curve(path, inference="LQ").time, [0.05])


def test_read_curve_of_a_model_without_exits_is_one_point(tmp_path: Path) -> None:
    curve = read_curve(write(tmp_path, HEADER + ",,0.9,10.0,1.0,6.0,1.0\n"))
    assert (curve.time.item(), curve.accuracy.item()) == (1.0, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; delete it"),
        (HEADER, "has no rows; delete it"),
        (HEADER + ROWS[:-1], "cut off in the middle of its last line; delete it"),
        (HEADER + ROWS[:-8], "cut off in the middle of its last line; delete it"),
        (HEADER + ",0.5,0.75,3.0\n", "line 2 has no number in column time_relative; delete it"),
        (HEADER + ROWS + ",0.5,,3.0,0.3,2.0,0.33\n", "line 6 has no number in column accuracy; delete it"),
        (HEADER + ",0.5,0.75,3.0,inf,2.0,0.33\n", "line 2 has no number in column time_relative; delete it"),
        (HEADER + ",0.5,best,3.0,0.3,2.0,0.33\n", "not a file of measurements"),
        (HEADER + ROWS + "\0\0\0,,,,,,,,\n", "not a file of measurements"),
        (HEADER + ",0.5,87.5,3.0,0.3,2.0,0.33\n", "column accuracy must hold fractions from 0 to 1"),
        ("inference,threshold,accuracy\n,0.5,0.7\n", "column time_ms, time_relative, mean_exit_layer"),
        ("inf", "column inference"),
    ],
)
def test_read_curve_refuses_broken_files_with_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PipeOpsError) as refusal:
        read_curve(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_cut_within_a_line_is_noticed(tmp_path: Path) -> None:
    text = HEADER + ROWS
    for end in range(len(text)):
        if not text[:end].endswith("\n"):
            with pytest.raises(PipeOpsError, match="delete it and run again"):
                read_curve(write(tmp_path, text[:end]))


def test_read_curve_names_what_was_measured_instead(tmp_path: Path) -> None:
    with pytest.raises(
        PipeOpsError, match=re.escape("inference operators L, only with (none), Q, LQ; delete")
    ):
        read_curve(write(tmp_path, HEADER + ROWS), inference="L")


def test_read_curve_of_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(PipeOpsError, match=r"seed9\.csv: not found; measure it first"):
        read_curve(tmp_path / "seed9.csv")
