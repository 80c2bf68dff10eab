"""Tradeoff curves: accuracy against inference time, how far two are apart, and the mean of several."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TradeoffCurve:
    """A piecewise linear curve through measured points, one per threshold (Xin et al. 2022, section 5.2).

    The points are sorted by time. Those at exactly the same time, as different thresholds give that let the
    same examples exit at the same layers, become one point with the mean of their accuracies.

    Raises:
        ValueError: the arrays are not 1-D, not of one length, empty, or hold something not finite.
    """

    time: FloatArray
    """Times, shape (points,), in any unit that all compared curves share."""
    accuracy: FloatArray
    """Accuracies, or values of another metric, shape (points,), as fractions."""

    def __post_init__(self) -> None:
        time, accuracy = np.asarray(self.time, float), np.asarray(self.accuracy, float)
        if time.ndim != 1 or time.shape != accuracy.shape or time.size == 0:
            raise ValueError(
                "time and accuracy must be 1-D, of one length and not empty; "
                f"their shapes are {time.shape} and {accuracy.shape}"
            )
        if not (np.isfinite(time).all() and np.isfinite(accuracy).all()):
            raise ValueError("time and accuracy must be finite")
        distinct, place, count = np.unique(time, return_inverse=True, return_counts=True)
        object.__setattr__(self, "time", distinct)
        object.__setattr__(self, "accuracy", np.bincount(place, weights=accuracy) / count)

    def shares_time_with(self, other: "TradeoffCurve") -> bool:
        """Whether some time is covered by both."""
        return bool(max(self.time[0], other.time[0]) <= min(self.time[-1], other.time[-1]))

    def at(self, time: ArrayLike) -> FloatArray:
        """Interpolate the accuracy at these times; NaN where the curve has no such time."""
        return np.interp(np.asarray(time, float), self.time, self.accuracy, left=np.nan, right=np.nan)


def distance(a: TradeoffCurve, b: TradeoffCurve) -> float:
    """Return the largest accuracy difference at the same time in percentage points (Xin et al. 2022, 5.2).

    It is taken over the times that both curves cover, which may be a single one, and is exact: between two
    neighbouring knots the difference is linear, so it is largest on a knot of either curve. NaN, with a
    warning, where the curves share no time.
    """
    _, difference = _differences(a, b)
    return 100 * float(np.abs(difference).max()) if difference.size else float("nan")


def mean_distance(a: TradeoffCurve, b: TradeoffCurve) -> float:
    """Return the mean absolute accuracy difference over the times that both cover, in percentage points.

    Exact: the integral of a piecewise linear function over the length of its interval. Where the curves share
    a single time it is the difference there. NaN, with a warning, where they share none.
    """
    knots, difference = _differences(a, b)
    if knots.size < 2:
        return 100 * float(np.abs(difference).mean()) if knots.size else float("nan")
    left, right = difference[:-1], difference[1:]
    total = np.abs(left) + np.abs(right)
    # A segment that crosses zero holds two triangles, one of each sign.
    crossing = np.divide(left**2 + right**2, total, out=np.zeros_like(total), where=total > 0)
    heights = np.where(left * right < 0, crossing, total) / 2
    return 100 * float((heights * np.diff(knots)).sum() / (knots[-1] - knots[0]))


TIMING_TOLERANCE = 0.05
"""O's own time is met by a curve whose fastest point is slower by at most this fraction: O relative to O is
1 only up to the clock's noise."""


def best_within(time: ArrayLike, accuracy: ArrayLike, budget: float) -> int | None:
    """Return the position of what a budget of time affords: the most accurate of the points that fit.

    Of those alike it is the fastest. None where even the fastest point takes longer. A budget of O's time, 1,
    may be exceeded by ``TIMING_TOLERANCE``: then the fastest point is what it affords.

    Args:
        time: of every point over O's, shape (points,).
        accuracy: the same.
        budget: over O's time.
    """
    time, accuracy = np.asarray(time, float), np.asarray(accuracy, float)
    least = time.min()
    if least > (1 + TIMING_TOLERANCE if budget == 1 else budget):
        return None
    fitting = np.flatnonzero(time <= max(budget, least))
    return int(fitting[np.lexsort((time[fitting], -accuracy[fitting]))[0]])


def area_under(curve: TradeoffCurve, *, until: float = 1.0) -> float:
    """Return the area under the curve over the times from 0 to ``until``, divided by ``until``.

    That is its mean accuracy over the times up to ``until``: 0 before the fastest point, and past the slowest
    that point's. Exact for a piecewise linear curve.
    """
    inside = curve.time[curve.time < until]
    if not inside.size:
        return 0.0
    knots = np.append(inside, until)
    heights = curve.at(np.minimum(knots, curve.time[-1]))
    return float(np.trapezoid(heights, knots) / until)


class MeanCurve(NamedTuple):
    """The mean of several runs' curves, with a confidence band. All arrays have one length."""

    time: FloatArray
    accuracy: FloatArray
    """Mean of the runs' accuracies at that time."""
    low: FloatArray
    """Lower end of the confidence interval of the mean; NaN for a single run."""
    high: FloatArray
    """Upper end."""


def mean_curve(curves: Sequence[TradeoffCurve], *, confidence: float = 0.95) -> MeanCurve:
    """Average curves whose points lie at different times.

    Every curve is interpolated at the knots of all of them, over the times that all cover; at each such time
    the accuracies are averaged, and the confidence interval is Student's t for the mean of the runs,
    pointwise. Without a time that all cover the arrays are empty, with a warning.

    Raises:
        ValueError: no curves.
    """
    knots = _shared_knots(curves)
    if not knots.size:
        warnings.warn(f"{len(curves)} tradeoff curves share no time and have no mean", stacklevel=2)
    values = np.stack([curve.at(knots) for curve in curves])
    mean, runs = values.mean(axis=0), len(curves)
    if runs == 1:
        unknown = np.full_like(mean, np.nan)
        return MeanCurve(knots, mean, unknown, unknown)
    margin = stdtrit(runs - 1, (1 + confidence) / 2) * values.std(axis=0, ddof=1) / np.sqrt(runs)
    return MeanCurve(knots, mean, mean - margin, mean + margin)


def pareto_front(time: ArrayLike, accuracy: ArrayLike) -> NDArray[np.intp]:
    """Return the positions of the points that no other beats, by ascending time.

    A point is beaten by one that is at most as slow and at least as accurate, and better in one of the two.
    Of points that are alike the first is kept.
    """
    time, accuracy = np.asarray(time, float), np.asarray(accuracy, float)
    order = np.lexsort((-accuracy, time))
    best = np.maximum.accumulate(accuracy[order])
    first = np.r_[True, best[1:] > best[:-1]] if order.size else np.zeros(0, bool)
    return order[first]


def _shared_knots(curves: Sequence[TradeoffCurve]) -> FloatArray:
    """Knots of all curves over the times that all of them cover; empty where there is no such time."""
    start, end = max(curve.time[0] for curve in curves), min(curve.time[-1] for curve in curves)
    knots = np.unique(np.concatenate([curve.time for curve in curves]))
    return knots[(start <= knots) & (knots <= end)]


def _differences(a: TradeoffCurve, b: TradeoffCurve) -> tuple[FloatArray, FloatArray]:
    """Knots of both curves over the times that both cover, and a's accuracy minus b's there."""
    knots = _shared_knots([a, b])
    if not knots.size:
        warnings.warn(
            "no distance between tradeoff curves that share no time: one ends at "
            f"{min(a.time[-1], b.time[-1]):.4g}, the other begins at {max(a.time[0], b.time[0]):.4g}",
            stacklevel=3,
        )
    return knots, a.at(knots) - b.at(knots)
