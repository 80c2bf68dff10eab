import math

import numpy as np
import pytest
from numpy.typing import ArrayLike

from pipeops.analysis.curves import FloatArray, TradeoffCurve
from pipeops.analysis.resampling import (
    PerExample,
    _mean_differences,
    _resampled,
    bootstrap,
    sampling_error,
)
from pipeops.analysis.verdicts import estimate, mean_difference
from pipeops.measuring.classes import METRICS, Metric


def right_where(correct: ArrayLike, time: FloatArray) -> PerExample:
    """Examples of one class, answered rightly or with the other one."""
    answers = np.asarray(correct).astype(int)
    return PerExample(answers, np.ones(answers.shape[1:], dtype=int), time)


def run(rng: np.random.Generator, *, thresholds: int = 5, examples: int = 40, shift: float = 0) -> PerExample:
    """Exits at a few costs, so that thresholds often share their exits, and their time."""
    exits = np.sort(rng.integers(0, 3, size=(thresholds, examples)), axis=0)
    exits[1] = exits[0]
    return right_where(rng.random((thresholds, examples)) < 0.7 + shift, np.array([0.2, 0.5, 1.0])[exits])


@pytest.mark.parametrize("thresholds", [1, 2, 5])
def test_resampled_curves_equal_those_of_repeated_examples(thresholds: int) -> None:
    rng = np.random.default_rng(thresholds)
    for _ in range(20):
        examples = int(rng.integers(1, 12))
        exits = rng.integers(0, 3, size=(2, thresholds, examples))
        time = np.array([0.2, 0.5, 1.0])[exits]
        a, b = (right_where(rng.random(t.shape) < 0.7, t) for t in time)
        counts = rng.multinomial(examples, np.full(examples, 1 / examples), size=30)
        weights = counts.T / examples
        got = _mean_differences(_resampled(a, weights), _resampled(b, weights))
        for value, count in zip(got, counts, strict=True):
            drawn = np.repeat(np.arange(examples), count)
            # Rounded as the resamples are, for what is one time to be one.
            curves = [
                TradeoffCurve(of.time[:, drawn].mean(axis=1).round(9), of.correct[:, drawn].mean(axis=1))
                for of in (a, b)
            ]
            if max(c.time[0] for c in curves) > min(c.time[-1] for c in curves):
                assert math.isnan(value)
            else:
                assert value == pytest.approx(mean_difference(*curves), abs=1e-5)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_metric_of_weighted_examples_is_that_of_repeated_ones(metric: Metric) -> None:
    """Four classes, one of them rare, one never right, and resamples that lack some."""
    rng = np.random.default_rng(5)
    labels = rng.choice(4, 25, p=[0.6, 0.3, 0.05, 0.05])
    answers = np.where(rng.random((3, 25)) < 0.6, labels, rng.integers(0, 4, (3, 25)))
    answers[answers == 3] = 0
    of = PerExample(answers, labels, np.ones((3, 25)), metric)
    counts = rng.multinomial(25, np.full(25, 1 / 25), size=40)
    counts[0] = 25 * (np.arange(25) == labels.argmin())
    got = of.weighted(counts.T / 25)
    assert got.shape == (3, 40)
    for resample, count in enumerate(counts):
        drawn = np.repeat(np.arange(25), count)
        expected = metric.of_answers(labels[drawn], answers[:, drawn])
        np.testing.assert_allclose(got[:, resample], expected, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_bootstrap_of_every_metric_has_the_spread_of_fresh_examples(metric: Metric) -> None:
    """Simulated: differences between two models over validation splits that are drawn anew."""
    rng = np.random.default_rng(6)

    def split() -> tuple[PerExample, PerExample]:
        labels = rng.choice(3, 400, p=[0.7, 0.2, 0.1])
        models = []
        for right in (0.85, 0.75):
            said = np.where(rng.random((1, 400)) < right, labels, rng.integers(0, 3, (1, 400)))
            models.append(PerExample(said, labels, np.ones((1, 400)), metric))
        return models[0], models[1]

    differences = [
        100 * (first.curve().accuracy - second.curve().accuracy).item()
        for first, second in (split() for _ in range(400))
    ]
    first, second = split()
    found = bootstrap([first], [second], resamples=1_000).sampling_error
    assert found == pytest.approx(np.std(differences), rel=0.2)


def test_sampling_errors_by_hand() -> None:
    assert sampling_error(0.8, 0.9, n_examples=100) == pytest.approx(5)
    np.testing.assert_allclose(sampling_error([0.5, 1.0], [1.0, 1.0], n_examples=25), [10, 0])


def test_the_bootstraps_sampling_error_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = (run(rng, thresholds=2, examples=400) for _ in range(2))
    a, b = (right_where(of.correct[:1], np.ones((1, 400))) for of in (a, b))
    difference = a.correct[0].astype(float) - b.correct[0]
    expected = 100 * difference.std(ddof=1) / math.sqrt(400)
    assert bootstrap([a], [b]).sampling_error == pytest.approx(expected, rel=0.1)


def test_without_sampling_error_the_interval_is_about_students_t() -> None:
    """Every example the same, so that only the seeds are resampled; ten seeds, not far from normal."""
    levels = np.linspace(0.55, 0.75, 10)
    first = [right_where(np.ones((1, 2)), np.ones((1, 2))) for _ in levels]
    second = [right_where(np.zeros((1, 2)), np.ones((1, 2))) for _ in levels]
    assert bootstrap(first, second) == (100, 100, 0)
    rng = np.random.default_rng(1)
    examples = 20_000
    first = [right_where(rng.random((1, examples)) < level, np.ones((1, examples))) for level in levels]
    second = [right_where(np.zeros((1, examples)), np.ones((1, examples))) for _ in levels]
    of_seeds = estimate([100 * of.correct.mean() for of in first])
    low, high, error = bootstrap(first, second, resamples=1_000)
    assert (low, high) == pytest.approx((of_seeds.low, of_seeds.high), abs=0.8)
    assert error == pytest.approx(100 * math.sqrt(0.65 * 0.35 / examples / 10), rel=0.15)


def test_one_seed_has_a_sampling_error_alone() -> None:
    rng = np.random.default_rng(2)
    low, high, error = bootstrap([run(rng)], [run(rng)], resamples=100)
    assert math.isnan(low)
    assert math.isnan(high)
    assert error > 0


def test_the_same_resamples_come_back() -> None:
    rng = np.random.default_rng(3)
    first, second = [run(rng) for _ in range(3)], [run(rng, shift=0.1) for _ in range(3)]
    assert bootstrap(first, second, resamples=200) == bootstrap(first, second, resamples=200)
    assert bootstrap(first, second, resamples=200) != bootstrap(first, second, resamples=200, seed=1)


def test_curves_that_share_no_time_have_no_interval() -> None:
    fast, slow = (right_where(np.ones((1, 5)), np.full((1, 5), time)) for time in (0.5, 1.0))
    assert np.isnan(bootstrap([fast, fast], [slow, slow], resamples=10)).all()


def test_runs_must_fit_together() -> None:
    rng = np.random.default_rng(4)
    for first, second in [([], []), ([run(rng)], []), ([run(rng)], [run(rng, examples=39)])]:
        with pytest.raises(ValueError, match="runs of the same seeds"):
            bootstrap(first, second)
    with pytest.raises(ValueError, match="2-D, of one shape and not empty"):
        right_where(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="2 labels for 3 examples"):
        PerExample(np.ones((2, 3), dtype=int), np.ones(2, dtype=int), np.ones((2, 3)))


def test_the_curve_is_that_of_all_examples() -> None:
    of = right_where(np.array([[1, 0], [1, 1]]), np.array([[0.2, 0.4], [1.0, 1.0]]))
    curve = of.curve()
    np.testing.assert_allclose(curve.time, [0.3, 1.0])
    np.testing.assert_allclose(curve.accuracy, [0.5, 1.0])
