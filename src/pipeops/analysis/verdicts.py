"""Does the order of a set of operators matter? An answer with an interval, per dataset and set.

A large p-value of "the orders differ" is no evidence that they do not. So two claims are tested: that the
difference of two orders is smaller than a margin (equivalence, by two one-sided tests: Schuirmann 1987,
J. Pharmacokinet. Biopharm. 15) and that it is larger. Xin et al. 2022 (section 5.2) find
differences of "less than 2%"; 2 points is the default margin.

What the verdicts mean, for the mean difference of two orders over more seeds of the same kind:

- *commute*: it is smaller than the margin, to either side. One order may still be ahead by less than that.
- *order matters*: it is larger than the margin. A difference that is surely there and surely smaller than
  the margin does not count: nobody would choose an order for it.
- *undecided*: neither is shown.

The validation split is taken as given, as there; ``resampling`` holds the interval over examples too.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from pipeops.analysis.curves import FloatArray, TradeoffCurve, distance
from pipeops.analysis.metrics import Metrics, heading
from pipeops.analysis.replays import Replays, Run
from pipeops.analysis.resampling import PerExample, bootstrap, sampling_error
from pipeops.errors import PipeOpsError
from pipeops.measuring.classes import ACCURACY
from pipeops.pipeline import orderings

MARGIN = 2.0
"""Default margin, percentage points: "less than 2%" (Xin et al. 2022, section 5.2)."""
LEVEL = 0.05
"""How often a claim may be made that is false. The interval that belongs to it is the 90% one."""
MANY_SEEDS = 30
"""Most additional seeds that are counted. Where more are needed, the count is infinite."""


class Verdict(StrEnum):
    """What the tests allow to claim about a pair of orderings or about a cell."""

    COMMUTE = "commute"
    MATTERS = "order matters"
    UNDECIDED = "undecided"
    NONE = "no verdict"
    """There is nothing to test: one seed, or curves that share no time."""


COLUMNS = [
    "dataset",
    "metric",
    "operators",
    "first",
    "second",
    "n_seeds",
    "mean_difference",
    "sd",
    "low",
    "high",
    "p_equivalent",
    "p_matters",
    "verdict",
    "more_seeds",
    "full_depth_difference",
    "full_depth_sd",
    "full_depth_low",
    "full_depth_high",
    "full_depth_p_equivalent",
    "full_depth_p_matters",
    "full_depth_verdict",
    "max_difference",
    "shared_time",
    "bootstrap_low",
    "bootstrap_high",
    "same_ordering",
    "priced_twice",
    "sampling_error",
    "paired_sampling_error",
    "margin",
    "cell_p_equivalent",
    "cell_p_matters",
    "cell_verdict_alone",
    "n_cells",
    "cell_holm_equivalent",
    "cell_holm_matters",
    "cell_verdict",
    "cell_more_seeds",
    "named",
]
"""Columns of :func:`commutativity`, which says what each is."""


def mean_difference(a: TradeoffCurve, b: TradeoffCurve) -> float:
    """Return the mean of a's accuracy minus b's over the times that both cover, in percentage points.

    Exact: the integral of the piecewise linear difference over the length of its interval. Where the curves
    share a single time it is the difference there. NaN, with a warning, where they share none.
    """
    start, end = max(a.time[0], b.time[0]), min(a.time[-1], b.time[-1])
    if start > end:
        warnings.warn(
            f"no mean difference of tradeoff curves that share no time: one ends at {end:.4g}, the other "
            f"begins at {start:.4g}",
            stacklevel=2,
        )
        return math.nan
    knots = np.unique(np.concatenate([a.time, b.time, [start, end]]))
    knots = knots[(start <= knots) & (knots <= end)]
    difference = a.at(knots) - b.at(knots)
    if knots.size == 1:
        return 100 * float(difference[0])
    return 100 * float(np.trapezoid(difference, knots) / (end - start))


def full_depth_difference(a: TradeoffCurve, b: TradeoffCurve) -> float:
    """Return a's accuracy minus b's in percentage points, each at its slowest point."""
    return 100 * float(a.accuracy[-1] - b.accuracy[-1])


class Estimate(NamedTuple):
    """A mean difference, estimated from one value per seed. All arrays have one shape."""

    mean: FloatArray
    """Percentage points."""
    sd: FloatArray
    """Sample SD over the seeds, percentage points; NaN with one seed, as all that follows."""
    low: FloatArray
    """Lower end of the 90% interval (Student's t) of the mean, percentage points."""
    high: FloatArray
    """Upper end."""
    p_equivalent: FloatArray
    """p-value of the claim that the difference is smaller than the margin, the larger of the two one-sided
    tests; at most 0.05 exactly where the 90% interval lies within the margin."""
    p_matters: FloatArray
    """p-value of the claim that the difference is larger than the margin, to either side; where it is at most
    0.05, the 90% interval lies wholly outside the margin."""


def estimate(differences: ArrayLike, *, margin: float = MARGIN) -> Estimate:
    """Estimate mean differences and test them against a margin.

    The values are taken to be independent and normal over the seeds. ``p_matters`` adds up both tails of a
    difference that is exactly as large as the margin, so that it is the usual two-sided p-value where the
    margin is small beside the standard error and a one-sided one where it is large.

    Args:
        differences: Shape (..., seeds), percentage points, without NaN.
        margin: Percentage points.

    Returns:
        Arrays of shape (...).
    """
    differences = np.asarray(differences, float)
    n = differences.shape[-1]
    nothing = np.full(differences.shape[:-1], np.nan)
    mean = differences.mean(axis=-1) if n else nothing
    if n < 2:
        return Estimate(mean, nothing, nothing, nothing, nothing, nothing)
    sd = differences.std(axis=-1, ddof=1)
    half = stdtrit(n - 1, 1 - LEVEL) * sd / math.sqrt(n)
    return Estimate(mean, sd, mean - half, mean + half, *_p_values(mean, sd, n, margin=margin))


def decide(p_equivalent: float, p_matters: float, *, level: float = LEVEL) -> Verdict:
    """Return the verdict that two p-values allow; they cannot both be small."""
    if p_equivalent <= level:
        return Verdict.COMMUTE
    if p_matters <= level:
        return Verdict.MATTERS
    return Verdict.NONE if math.isnan(p_equivalent) else Verdict.UNDECIDED


def cell_p_values(p_equivalent: ArrayLike, p_matters: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both p-values of cells from those of their pairs of orderings.

    The orderings commute if every pair does, so the largest p-value counts and needs no correction
    (intersection-union: Berger 1982, Technometrics 24). The order matters if it does for any pair, so the
    smallest counts, times the number of pairs (Bonferroni). A pair without a test leaves the first NaN.

    Args:
        p_equivalent: Shape (..., pairs).
        p_matters: Shape (..., pairs).
    """
    p_equivalent, p_matters = np.asarray(p_equivalent, float), np.asarray(p_matters, float)
    tested = ~np.isnan(p_matters)
    smallest = np.where(tested, p_matters, 1).min(axis=-1)
    matters = np.minimum(1, smallest * tested.sum(axis=-1))
    return p_equivalent.max(axis=-1), np.where(tested.any(axis=-1), matters, np.nan)


def holm(p_values: ArrayLike) -> FloatArray:
    """Return p-values adjusted for their number (Holm 1979, Scand. J. Statist. 6).

    Args:
        p_values: Shape (..., tests). NaN stays NaN and does not count: no claim is made there.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, axis=-1)  # NaN last
    ascending = np.take_along_axis(p, order, axis=-1)
    remaining = (~np.isnan(p)).sum(axis=-1, keepdims=True) - np.arange(p.shape[-1])
    adjusted = np.minimum(1, np.maximum.accumulate(ascending * np.maximum(remaining, 1), axis=-1))
    result = np.empty_like(p)
    np.put_along_axis(result, order, adjusted, axis=-1)
    return result


def seeds_needed(
    mean: float,
    sd: float,
    n: int,
    *,
    margin: float = MARGIN,
    equivalent_level: float = LEVEL,
    matters_level: float = LEVEL,
) -> tuple[float, float]:
    """Return how many more seeds allow each claim if mean and SD stay what they are.

    They will not stay, so that many more seeds decide about every other time.

    Returns:
        The number until *commute* and until *order matters*: 0 where it holds already, infinite where it
        takes more than ``MANY_SEEDS`` more, NaN with one seed.
    """
    if n < 2 or math.isnan(sd):
        return math.nan, math.nan
    p_equivalent, p_matters = _p_values(mean, sd, n + np.arange(MANY_SEEDS + 1), margin=margin)
    return _first(p_equivalent <= equivalent_level), _first(p_matters <= matters_level)


def same_ordering(curves: Mapping[tuple[str, int], TradeoffCurve]) -> float:
    """Return how far two seeds of one ordering are apart, in percentage points.

    It is the mean of |:func:`mean_difference`| over all pairs of seeds, averaged over the orderings. Pairs
    that share no time are left out; NaN where none is left, as with one seed.

    Args:
        curves: The curve of every (ordering, seed).
    """
    of_orderings = []
    for ordering in dict.fromkeys(ordering for ordering, _ in curves):
        seeds = [curve for (name, _), curve in curves.items() if name == ordering]
        of_orderings.append(_mean([abs(_quiet(mean_difference, a, b)) for a, b in combinations(seeds, 2)]))
    return _mean(of_orderings)


def priced_twice(curves: Sequence[tuple[TradeoffCurve, TradeoffCurve]]) -> float:
    """Return how far the curves of the same models, priced twice, are apart, in percentage points.

    It is the mean of |:func:`mean_difference`|.

    Args:
        curves: of every run, with the one price and with the other.
    """
    return _mean([abs(_quiet(mean_difference, *pair)) for pair in curves])


def commutativity(
    runs: Mapping[Run, TradeoffCurve],
    operator_sets: Sequence[str],
    *,
    margin: float = MARGIN,
    metrics: Metrics | None = None,
    replays: Replays | None = None,
) -> pd.DataFrame:
    """Say for every operator set on every dataset (a cell) whether the order matters.

    Args:
        runs: The curve of every (dataset, ordering, seed), accuracy a fraction, time over O's; other
            pipelines in it are left aside.
        operator_sets: The sets, each with at least two orderings.
        margin: Percentage points of accuracy, or of the dataset's metric.
        metrics: By dataset, the metric that its curves show; accuracy where none is named.
        replays: Answers and prices of the same runs, for ``priced_twice``, the sampling errors and the
            bootstrap.

    Returns:
        A row per (dataset, operators, pair of orderings). Differences are ``first`` minus ``second``, paired
        by seed, in percentage points. NaN where a figure cannot be had. Columns of the pair:

        - ``n_seeds``: seeds whose two curves share a time; the others are left out, with a warning.
        - ``mean_difference``, ``sd``, ``low``, ``high``, ``p_equivalent``, ``p_matters``: the
          :class:`Estimate` of the mean difference over the times that both curves cover. It decides.
        - ``verdict``: of this pair alone, uncorrected. ``more_seeds``: 0 if it is decided, else how many more
          would decide it if mean and SD stay (:func:`seeds_needed`).
        - ``full_depth_*``: the same at each curve's slowest point; ``full_depth_difference`` is its mean.
        - ``max_difference``: mean over the seeds of the largest absolute difference (``distance``).
        - ``shared_time``: mean over the seeds of the part of both curves' times that both cover, 0..1.
        - ``bootstrap_low``, ``bootstrap_high``: 90% interval over seeds and examples; it decides nothing.
        - ``sampling_error``: SE of the difference at full depth if two models answered independently of
          each other; of accuracy only. ``paired_sampling_error``: SE of ``mean_difference`` from the
          examples, seeds as given.

        Columns of the cell, the same in all its rows:

        - ``same_ordering``, ``priced_twice``: yardsticks, :func:`same_ordering` and :func:`priced_twice`, the
          latter with the prices of either half of their rounds.
        - ``cell_p_equivalent``, ``cell_p_matters``: :func:`cell_p_values`; ``cell_verdict_alone``: theirs.
        - ``n_cells``, ``cell_holm_equivalent``, ``cell_holm_matters``: the same, adjusted over the cells, for
          each claim by itself. ``cell_verdict``: theirs, which is *the* verdict: a table is read for the
          cells that stand out, so each claim is made falsely anywhere in it at most once in 20 tables.
        - ``cell_more_seeds``: as ``more_seeds``, for ``cell_verdict``, if other cells stay what they are.
        - ``named``: whether the cell's sentence is about this pair. One is in every cell.

    Raises:
        PipeOpsError: the margin is not positive, an ordering or a run is missing.
    """
    if not 0 < margin < math.inf:
        raise PipeOpsError(
            f"commutativity.margin: {margin:g} is not a positive number; name the percentage points of "
            "accuracy, or of the task's metric, below which a difference does not matter, such as 2.0"
        )
    cells = []
    for dataset in dict.fromkeys(dataset for dataset, _, _ in runs):
        for operators in operator_sets:
            names = [str(ordering) for ordering in orderings(operators)]
            curves = complete(runs, dataset, names)
            metric = (metrics or {}).get(dataset, ACCURACY.name)
            here: dict[str, Any] = {"dataset": dataset, "metric": metric}
            here |= {"operators": operators, "margin": margin}
            here["same_ordering"] = same_ordering(curves)
            if replays is not None:
                here["priced_twice"] = priced_twice([replays.priced_twice((dataset, *run)) for run in curves])
                per_example = {run: replays.per_example((dataset, *run)) for run in curves}
                n_examples = replays.n_examples(dataset)
            cell = []
            for first, second in combinations(names, 2):
                seeds = [seed for name, seed in curves if name == first]
                row = here | {"first": first, "second": second}
                row |= _differences(row, [(curves[first, s], curves[second, s]) for s in seeds])
                if replays is not None:
                    depth = (
                        np.array([curves[name, s].accuracy[-1] for s in seeds]) for name in (first, second)
                    )
                    known = metric == ACCURACY.name
                    row["sampling_error"] = (
                        sampling_error(*depth, n_examples=n_examples).mean() if known else math.nan
                    )
                    row |= _resampled(*([per_example[name, s] for s in seeds] for name in (first, second)))
                cell.append(row)
            cells.append(cell)
    return pd.DataFrame(_with_verdicts(cells), columns=COLUMNS)


def sentences(table: pd.DataFrame) -> list[str]:
    """Return the verdict of every cell in words, in the table's order.

    Args:
        table: as :func:`commutativity` returns it, or as it was read back from CSV.
    """
    groups: Any = table.groupby(["dataset", "operators"], sort=False)
    return [sentence(cell) for _, cell in groups]


def sentence(cell: pd.DataFrame) -> str:
    """Return the verdict of one cell in words; of more than two orderings it names the pair that decides.

    Args:
        cell: the cell's rows in what :func:`commutativity` returns.
    """
    row: Any = cell[cell["named"]].iloc[0]
    of_pair = f"{row['first']} and {row['second']}: " if len(cell) > 1 else ""
    subject = f"{'+'.join(row['operators'])} on {heading(row['dataset'], row['metric'])}: "
    within = f"within {_points(row['margin'])}"
    match row["cell_verdict"]:
        case Verdict.COMMUTE if row["low"] <= 0 <= row["high"]:
            if of_pair:
                of_pair = f"{row['first']} and {row['second']} differ most: "
            return f"{subject}the order does not matter, {within} ({of_pair}90% interval {_interval(row)})"
        case Verdict.COMMUTE:
            return f"{subject}the order does not matter, {within}, though {_ahead(row)}"
        case Verdict.MATTERS:
            return f"{subject}the order matters: {_ahead(row)}"
        case Verdict.NONE:
            return subject + _why_none(row)
    more = _seeds(row["cell_more_seeds"])
    if row["cell_verdict_alone"] != Verdict.UNDECIDED:
        alone = f"{within} ({of_pair}{_interval(row)})"
        if row["cell_verdict_alone"] == Verdict.MATTERS:
            alone = f"{_ahead(row)}, more than {_points(row['margin'])}"
        cells = f"once corrected for {row['n_cells']} cells"
        return f"{subject}undecided: {alone} when tested alone, but not {cells} ({more})"
    if row["low"] <= 0 <= row["high"]:
        return f"{subject}undecided ({of_pair}{_interval(row)}; {more})"
    return (
        f"{subject}undecided: {_ahead(row)}, which may be more or less than {_points(row['margin'])}; {more}"
    )


def _p_values(
    mean: ArrayLike, sd: ArrayLike, n: ArrayLike, *, margin: float
) -> tuple[FloatArray, FloatArray]:
    """p-values that a difference is smaller, and larger, than the margin; n at least 2."""
    mean, n = np.asarray(mean, float), np.asarray(n)
    se = np.asarray(sd, float) / np.sqrt(n)
    beyond, other_side = _in_units(np.abs(mean) - margin, se), _in_units(np.abs(mean) + margin, se)
    return stdtr(n - 1, beyond), stdtr(n - 1, -beyond) + stdtr(n - 1, -other_side)


def _in_units(value: FloatArray, se: FloatArray) -> FloatArray:
    """The value over its standard error, infinite where the latter is 0."""
    value, se = np.broadcast_arrays(value, se)
    infinite = np.where(value == 0, 0, np.copysign(np.inf, value))
    return np.divide(value, se, out=infinite, where=se > 0)


def _first(holds: np.ndarray) -> float:
    return float(holds.argmax()) if holds.any() else math.inf


def _mean(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _quiet(measure: Any, a: TradeoffCurve, b: TradeoffCurve) -> float:
    """The measure of two curves; NaN without a warning where they share no time."""
    return measure(a, b) if a.shares_time_with(b) else math.nan


def _shared_time(a: TradeoffCurve, b: TradeoffCurve) -> float:
    """Length of the times that both cover over the length that the two span; 1 where they span a point."""
    span = max(a.time[-1], b.time[-1]) - min(a.time[0], b.time[0])
    shared = min(a.time[-1], b.time[-1]) - max(a.time[0], b.time[0])
    return float(max(shared, 0) / span) if span else 1.0


def complete(
    runs: Mapping[Run, TradeoffCurve], dataset: str, names: Sequence[str]
) -> dict[tuple[str, int], TradeoffCurve]:
    """The curve of every (ordering, seed) of a set on a dataset: each ordering with each seed.

    Raises:
        PipeOpsError: one is missing, or there is nothing to compare.
    """
    if len(names) < 2:
        raise PipeOpsError(f"orderings {list(names)}: comparing them needs at least two; add the others")
    seeds = sorted({seed for where, name, seed in runs if where == dataset and name in names})
    if not seeds:
        raise PipeOpsError(f"orderings {list(names)} have no curves on {dataset}; measure them first")
    for name, seed in product(names, seeds):
        if (dataset, name, seed) not in runs:
            raise PipeOpsError(f"ordering {name} has no curve for seed {seed}; measure it first")
    return {(name, seed): runs[dataset, name, seed] for name in names for seed in seeds}


def _differences(
    row: Mapping[str, Any], pairs: Sequence[tuple[TradeoffCurve, TradeoffCurve]]
) -> dict[str, Any]:
    """The columns that need no more than the two curves of every seed."""
    margin = row["margin"]
    means = np.array([_quiet(mean_difference, *pair) for pair in pairs])
    used = [pair for pair, mean in zip(pairs, means, strict=True) if not math.isnan(mean)]
    if disjoint := len(pairs) - len(used):
        warnings.warn(
            f"{row['operators']} on {row['dataset']}: the curves of {row['first']} and {row['second']} share "
            f"no time in {disjoint} of {len(pairs)} seeds, which are left out",
            stacklevel=3,
        )
    over_time = _scalars(estimate(means[~np.isnan(means)], margin=margin))
    at_depth = _scalars(estimate([full_depth_difference(*pair) for pair in used], margin=margin))
    verdict = decide(over_time["p_equivalent"], over_time["p_matters"])
    needed = seeds_needed(over_time["mean"], over_time["sd"], len(used), margin=margin)
    return {
        "n_seeds": len(used),
        "mean_difference": over_time.pop("mean"),
        **over_time,
        "verdict": verdict,
        "more_seeds": min(needed),
        "full_depth_difference": at_depth.pop("mean"),
        **{f"full_depth_{name}": value for name, value in at_depth.items()},
        "full_depth_verdict": decide(at_depth["p_equivalent"], at_depth["p_matters"]),
        "max_difference": _mean([distance(*pair) for pair in used]),
        "shared_time": _mean([_shared_time(*pair) for pair in pairs]),
    }


def _resampled(first: Sequence[PerExample], second: Sequence[PerExample]) -> dict[str, float]:
    low, high, error = bootstrap(first, second)
    return {"bootstrap_low": low, "bootstrap_high": high, "paired_sampling_error": error}


def _scalars(of: Estimate) -> dict[str, float]:
    return {name: float(value) for name, value in of._asdict().items()}


def _with_verdicts(cells: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Add the columns of the cell to the rows of its pairs; return all rows."""
    alone = [
        cell_p_values(*([row[f"p_{claim}"] for row in cell] for claim in ("equivalent", "matters")))
        for cell in cells
    ]
    equivalent, matters = np.array(alone).reshape(-1, 2).T
    adjusted_equivalent, adjusted_matters = holm(equivalent), holm(matters)
    # Holm compares the smallest p-value of the claims not yet made with the level over their number.
    equivalent_level, matters_level = (
        LEVEL / max(1, int((adjusted > LEVEL).sum())) for adjusted in (adjusted_equivalent, adjusted_matters)
    )
    rows = []
    for i, cell in enumerate(cells):
        verdict = decide(adjusted_equivalent[i], adjusted_matters[i])
        verdict_alone = decide(equivalent[i], matters[i])
        columns = {
            "cell_p_equivalent": equivalent[i],
            "cell_p_matters": matters[i],
            "cell_verdict_alone": verdict_alone,
            "n_cells": int((~np.isnan(matters)).sum()),
            "cell_holm_equivalent": adjusted_equivalent[i],
            "cell_holm_matters": adjusted_matters[i],
            "cell_verdict": verdict,
            "cell_more_seeds": _cell_more_seeds(cell, verdict, equivalent_level, matters_level),
        }
        named = _named(cell, verdict if verdict == Verdict.NONE else verdict_alone)
        rows += [row | columns | {"named": place == named} for place, row in enumerate(cell)]
    return rows


def _cell_more_seeds(
    cell: Sequence[Mapping[str, Any]],
    verdict: Verdict,
    equivalent_level: float,
    matters_level: float,
) -> float:
    if verdict in (Verdict.COMMUTE, Verdict.MATTERS):
        return 0.0
    needed = [
        seeds_needed(
            row["mean_difference"],
            row["sd"],
            row["n_seeds"],
            margin=row["margin"],
            equivalent_level=equivalent_level,
            matters_level=matters_level / len(cell),
        )
        for row in cell
    ]
    until_equivalent, until_matters = np.array(needed).T
    return float(min(until_equivalent.max(), until_matters.min()))


def _named(cell: Sequence[Mapping[str, Any]], verdict_alone: Verdict) -> int:
    """Place of the pair that decides: the one surest to matter, the least sure to commute, or untested."""
    if verdict_alone == Verdict.MATTERS:
        return int(np.nanargmin([row["p_matters"] for row in cell]))
    if verdict_alone == Verdict.NONE:
        keys = [(-row["n_seeds"], abs(row["mean_difference"])) for row in cell]
        return keys.index(max(keys))
    return int(np.argmax([row["p_equivalent"] for row in cell]))


def _points(margin: float) -> str:
    return f"{margin:g} point" if margin == 1 else f"{margin:g} points"


def _decimals(row: Mapping[str, Any]) -> int:
    """As few as show on which side of 0 and of the margin the interval's ends are: one to three."""
    ends, bounds = np.array([[row["low"]], [row["high"]]]), np.array([-row["margin"], 0, row["margin"]])
    for decimals in (1, 2):
        if (np.sign(ends.round(decimals) - bounds) == np.sign(ends - bounds)).all():
            return decimals
    return 3


def _interval(row: Mapping[str, Any]) -> str:
    decimals = _decimals(row)
    # Adding 0 turns -0.0 into 0.0.
    return (
        f"{round(row['low'], decimals) + 0:+.{decimals}f} to {round(row['high'], decimals) + 0:+.{decimals}f}"
    )


def _leader(row: Mapping[str, Any], decimals: int = 1) -> str:
    first, second = (
        (row["first"], row["second"]) if row["mean_difference"] > 0 else (row["second"], row["first"])
    )
    return f"{first} is {abs(row['mean_difference']):.{decimals}f} points ahead of {second}"


def _ahead(row: Mapping[str, Any]) -> str:
    low, high = sorted([abs(row["low"]), abs(row["high"])])
    decimals = _decimals(row)
    return f"{_leader(row, decimals)} ({low:.{decimals}f} to {high:.{decimals}f})"


def _why_none(row: Mapping[str, Any]) -> str:
    if not row["n_seeds"]:
        return f"no verdict: the curves of {row['first']} and {row['second']} share no time"
    return f"one seed: no verdict ({_leader(row)})"


def _seeds(more: float) -> str:
    if math.isinf(more):
        return f"more than {MANY_SEEDS} more seeds"
    return "about 1 more seed" if more == 1 else f"about {more:.0f} more seeds"
