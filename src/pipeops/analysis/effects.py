"""One answer over several tasks: the mean difference of two orders, and how tasks and seeds differ in it.

A mixed-effects model per pair of orderings. The order is the fixed effect; tasks and seeds are random. Runs
are paired by seed, so what a seed adds to both orderings is gone, and what is left of it is the residual.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from pipeops.analysis.curves import TradeoffCurve
from pipeops.analysis.replays import Run
from pipeops.analysis.verdicts import LEVEL, Verdict, complete, mean_difference
from pipeops.pipeline import orderings

_NO_SCATTER = 1e-9
"""Percentage points; less is rounding."""
COLUMNS = [
    "operators", "first", "second", "n_tasks", "n_runs",
    "effect", "se", "low", "high", "sd_tasks", "sd_seeds", "margin", "verdict",
]  # fmt: skip
"""A row per pair of orderings. ``effect`` is the mean of ``first`` minus ``second`` over tasks, ``low`` and
``high`` its 90% interval, ``sd_tasks`` how tasks differ in it and ``sd_seeds`` how seeds of a task do; all in
percentage points of accuracy."""


class Effect(NamedTuple):
    """The mean of a difference over tasks that stand for more of their kind."""

    mean: float
    se: float
    """Standard error of the mean."""
    sd_groups: float
    """SD of the groups' true means; 0 where groups differ by no more than their members."""
    sd_rest: float
    """SD within a group."""


def mixed_effect(values: ArrayLike, groups: ArrayLike) -> Effect:
    """Fit value = mean + group + rest by restricted maximum likelihood.

    Args:
        values: shape (runs,).
        groups: the group of each, shape (runs,); two groups or more, one of them with two values or more.
    """
    values = np.asarray(values, float)
    means = pd.Series(values).groupby(np.asarray(groups)).agg(["mean", "std"])
    if not (means["std"] > _NO_SCATTER).any():  # no likelihood has a maximum; the groups are known
        sd = float(means["mean"].std())
        return Effect(float(means["mean"].mean()), sd / math.sqrt(len(means)), sd, 0.0)
    with warnings.catch_warnings():
        # Where groups do not differ, their variance is at its bound, 0, which is an answer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = MixedLM(values, np.ones((len(values), 1)), np.asarray(groups)).fit(
            reml=True,
            method="powell",  # gradients mislead the default method near the bound
        )
    rest, between = float(fit.scale), float(np.asarray(fit.cov_re)[0, 0])
    return Effect(float(fit.fe_params[0]), float(fit.bse_fe[0]), math.sqrt(between), math.sqrt(rest))


def effects(
    runs: Mapping[Run, TradeoffCurve], operator_sets: Sequence[str], *, margin: float
) -> pd.DataFrame:
    """Estimate the effect of the order over all tasks, for every pair of orderings of every set.

    The interval is Student's t with as many degrees of freedom as there are tasks, less one: few tasks say
    little of others, however many seeds they have.

    Args:
        runs: The curve of every (dataset, ordering, seed).
        operator_sets: The sets, each with at least two orderings.
        margin: Percentage points; the verdict says whether the interval lies within it or outside.

    Returns:
        Rows with ``COLUMNS``. Pairs of curves that share no time are left out. There is no verdict, and NaN
        for all that is estimated, where a task has no pair that does, or each has one.

    Raises:
        PipeOpsError: a task has some runs of a set, and not all.
    """
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in runs))
    known, rows = {run[:2] for run in runs}, []
    for operators in operator_sets:
        names = [str(ordering) for ordering in orderings(operators)]
        studied = [dataset for dataset in datasets if {(dataset, name) for name in names} & known]
        of_tasks = {dataset: complete(runs, dataset, names) for dataset in studied}
        for first, second in combinations(names, 2):
            found = [
                (dataset, mean_difference(curve, curves[second, seed]))
                for dataset, curves in of_tasks.items()
                for (ordering, seed), curve in curves.items()
                if ordering == first and curve.shares_time_with(curves[second, seed])
            ]
            tasks, values = zip(*found, strict=True) if found else ((), ())
            rows.append({"operators": operators, "first": first, "second": second, "margin": margin})
            rows[-1] |= {"n_tasks": len(set(tasks)), "n_runs": len(values), "verdict": Verdict.NONE}
            if set(tasks) == set(datasets) and len(values) > len(datasets) > 1:
                rows[-1] |= _estimated(mixed_effect(values, tasks), len(datasets), margin)
    return pd.DataFrame(rows, columns=COLUMNS)


def _estimated(found: Effect, n_tasks: int, margin: float) -> dict[str, object]:
    half = float(stdtrit(n_tasks - 1, 1 - LEVEL)) * found.se
    low, high = found.mean - half, found.mean + half
    verdict = Verdict.UNDECIDED
    if max(-low, high) <= margin:
        verdict = Verdict.COMMUTE
    elif low >= margin or high <= -margin:
        verdict = Verdict.MATTERS
    return {
        "effect": found.mean,
        "se": found.se,
        "low": low,
        "high": high,
        "sd_tasks": found.sd_groups,
        "sd_seeds": found.sd_rest,
        "verdict": verdict,
    }
