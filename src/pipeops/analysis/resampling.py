"""What a finite validation split adds to a difference of two orderings: its sampling error, by formula and
by a bootstrap over seeds and examples. The formula is for accuracy, the bootstrap for every metric.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

from pipeops.analysis.curves import FloatArray, TradeoffCurve
from pipeops.measuring.classes import ACCURACY, Counts, Metric

_AT_ONCE = 4_000_000  # numbers in one block of weights: 32 MB
_SAME_TIME = 9  # decimals; sums of the same times in another order differ by rounding alone


@dataclass(frozen=True, eq=False)
class PerExample:
    """What one run answers to every validation example at every threshold, and what that costs.

    Raises:
        ValueError: answers and times are not 2-D, not of one shape, or empty, or the labels not as many.
    """

    answers: NDArray[np.int64]
    """The class that is answered, shape (thresholds, examples)."""
    label_ids: NDArray[np.int64]
    """The right classes, shape (examples,)."""
    time: FloatArray
    """Time over O's mean time, shape (thresholds, examples). O's is taken as given."""
    metric: Metric = ACCURACY
    """What says how good answers are."""

    def __post_init__(self) -> None:
        answers, time = self.answers, self.time
        if answers.ndim != 2 or answers.shape != time.shape or answers.size == 0:
            raise ValueError(
                "answers and time must be 2-D, of one shape and not empty; "
                f"their shapes are {answers.shape} and {time.shape}"
            )
        if len(self.label_ids) != answers.shape[1]:
            raise ValueError(f"{len(self.label_ids)} labels for {answers.shape[1]} examples")

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the answer is right, shape (thresholds, examples)."""
        return self.answers == self.label_ids

    def curve_by_threshold(self) -> tuple[FloatArray, FloatArray]:
        """Return mean time and the metric over all examples at every threshold."""
        return self.time.mean(axis=1), self.metric.of_answers(self.label_ids, self.answers)

    def weighted(self, weights: FloatArray) -> FloatArray:
        """Return the metric at every threshold if examples count by their weights.

        Args:
            weights: shape (examples, resamples), with a sum of 1 in each resample.

        Returns:
            Shape (thresholds, resamples).
        """
        correct = self.correct.astype(float)
        if self.metric is ACCURACY:  # a mean over the examples: one product instead of one per class
            return correct @ weights
        members = [self.label_ids == c for c in range(int(max(self.label_ids.max(), self.answers.max())) + 1)]
        right = [correct[:, of_class] @ weights[of_class] for of_class in members]
        answered = [(self.answers == c).astype(float) @ weights for c in range(len(members))]
        support = [weights[of_class].sum(axis=0) for of_class in members]
        return self.metric.of(Counts(*(np.stack(counts, axis=-1) for counts in (right, answered, support))))

    def curve(self) -> TradeoffCurve:
        """Return the tradeoff curve over all examples."""
        return TradeoffCurve(*self.curve_by_threshold())


class Bootstrap(NamedTuple):
    """What resampling says of a mean difference, in percentage points."""

    low: float
    """Lower end of the interval over seeds and examples; NaN with fewer than two seeds."""
    high: float
    """Upper end."""
    sampling_error: float
    """SD of the mean over the seeds when only the examples are resampled."""


def sampling_error(first: ArrayLike, second: ArrayLike, *, n_examples: int) -> FloatArray:
    """Return the standard error of a difference of two accuracies, in percentage points.

    The two models are taken to err independently of each other. They mostly err on the same examples, which
    makes the true one smaller: :class:`Bootstrap` has that.

    Args:
        first: Accuracies, fractions, of any shape.
        second: Accuracies of the same shape.
        n_examples: Number of examples that both are measured on.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    return 100 * np.sqrt((first * (1 - first) + second * (1 - second)) / n_examples)


def bootstrap(
    first: Sequence[PerExample],
    second: Sequence[PerExample],
    *,
    confidence: float = 0.9,
    resamples: int = 2_000,
    seed: int = 0,
) -> Bootstrap:
    """Resample seeds and examples, and so the mean difference of two orderings' tradeoff curves.

    Both orderings keep the same seeds and the same examples in a resample, as differences are paired. The
    measure is ``verdicts.mean_difference``, averaged over the seeds. Percentiles of so few seeds make an
    interval that is too narrow; it is widened to what Student's t would give (expanded percentile interval:
    Hesterberg 2015, The American Statistician 69). Seeds whose curves share no time in a resample are left
    out of all.

    Args:
        first: The first ordering's runs, one per seed.
        second: The second's, of the same seeds and examples.
        confidence: Of the interval.
        resamples: Number of resamples.
        seed: Seed of the resamples; the same one resamples the same examples for every pair of orderings.

    Raises:
        ValueError: there are no runs, or not as many of both, or not of the same number of examples.
    """
    examples = {len(run.label_ids) for run in (*first, *second)}
    if len(first) != len(second) or len(examples) != 1:
        raise ValueError("both orderings need runs of the same seeds, at least one, on the same examples")
    rng = np.random.default_rng(seed)
    n = examples.pop()
    blocks = []
    for start in range(0, resamples, block := max(1, _AT_ONCE // n)):
        weights = _weights(rng, min(block, resamples - start), n)
        pairs = zip(first, second, strict=True)
        blocks.append([_mean_differences(_resampled(a, weights), _resampled(b, weights)) for a, b in pairs])
    differences = np.concatenate(blocks, axis=1)  # (seeds, resamples)
    differences = differences[np.isfinite(differences).all(axis=1)]
    num_seeds = len(differences)
    error = float(differences.mean(axis=0).std(ddof=1)) if num_seeds else math.nan
    if num_seeds < 2:
        return Bootstrap(math.nan, math.nan, error)
    drawn = rng.integers(num_seeds, size=(num_seeds, resamples))
    means = np.take_along_axis(differences, drawn, axis=0).mean(axis=0)
    t = stdtrit(num_seeds - 1, (1 + confidence) / 2)
    tail = ndtr(-math.sqrt(num_seeds / (num_seeds - 1)) * t)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Bootstrap(float(low), float(high), error)


def _weights(rng: np.random.Generator, resamples: int, n: int) -> FloatArray:
    """How often each example is drawn over the number of draws, shape (examples, resamples)."""
    rows = np.arange(resamples)[:, np.newaxis] * n
    drawn = rng.integers(n, size=(resamples, n)) + rows
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).T / n


def _resampled(run: PerExample, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Time and accuracy of the curve in every resample, each (resamples, thresholds), as TradeoffCurve's."""
    time, accuracy = (run.time @ weights).T.round(_SAME_TIME), run.weighted(weights).T
    order = np.argsort(time, axis=1, kind="stable")
    time, accuracy = np.take_along_axis(time, order, axis=1), np.take_along_axis(accuracy, order, axis=1)
    # Points at the same time get the mean of their accuracies.
    place = (np.diff(time, axis=1, prepend=-np.inf) > 0).cumsum(axis=1) - 1
    place += np.arange(len(time))[:, np.newaxis] * time.shape[1]
    total = np.bincount(place.ravel(), weights=accuracy.ravel(), minlength=time.size)
    count = np.bincount(place.ravel(), minlength=time.size)
    return time, total[place] / count[place]


def _mean_differences(a: tuple[FloatArray, FloatArray], b: tuple[FloatArray, FloatArray]) -> FloatArray:
    """``verdicts.mean_difference`` of many pairs of curves, points of each (curves, points), sorted."""
    start, end = np.maximum(a[0][:, 0], b[0][:, 0]), np.minimum(a[0][:, -1], b[0][:, -1])
    at_start_a, until_start_a = _at_and_until(*a, start)
    at_start_b, until_start_b = _at_and_until(*b, start)
    _, until_end_a = _at_and_until(*a, end)
    _, until_end_b = _at_and_until(*b, end)
    area = (until_end_a - until_start_a) - (until_end_b - until_start_b)
    length = end - start
    difference = np.divide(area, length, out=at_start_a - at_start_b, where=length > 0)
    return np.where(length < 0, np.nan, 100 * difference)


def _at_and_until(time: FloatArray, accuracy: FloatArray, until: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Accuracy of every curve at its time ``until``, and its integral from the first point to there."""
    rows, last = np.arange(len(time)), time.shape[1] - 1
    left = np.clip((time <= until[:, np.newaxis]).sum(axis=1) - 1, 0, max(last - 1, 0))
    right = np.minimum(left + 1, last)
    width = time[rows, right] - time[rows, left]
    beyond = until - time[rows, left]
    share = np.divide(beyond, width, out=np.zeros_like(width), where=width > 0)
    before = accuracy[rows, left]
    at = before + share * (accuracy[rows, right] - before)
    areas = np.diff(time, axis=1) * (accuracy[:, 1:] + accuracy[:, :-1]) / 2
    until_left = np.pad(areas.cumsum(axis=1), ((0, 0), (1, 0)))[rows, left]
    return at, until_left + beyond * (before + at) / 2
