"""How good is a recommendation? What it costs to choose from predictions, where everything was measured.

From runs of single operators alone every other pipeline is predicted, and the best is chosen under a budget
of time. What was measured of all pipelines then says what the choice is worth. Its regret is the accuracy (or
other metric) of the best measured pipeline under the budget minus that of the chosen one, in percentage
points. The best is the largest of many means, so noise alone makes some regret.

Two published rules choose an order without measuring it: "weaker perturbation first" (arXiv 2603.18426), and
D, P, Q, E, a topological sort of pairs (arXiv 2403.17447). Their regret is against the best ordering of the
same operators.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pipeops.analysis.curves import FloatArray
from pipeops.analysis.predict import MEASURED, PREDICTED, Predictor, tabulate
from pipeops.analysis.recommend import most_accurate, name_of
from pipeops.analysis.replays import Replays
from pipeops.pipeline import INFERENCE, Pipeline, closure, trained_pipelines

BUDGETS = 10
"""Budgets of time, log-spaced from the fastest point that was measured to O's time, both included."""
CHOSEN, SINGLE = "predicted", "single operators"
WEAKER, SORTED = "weaker first", "D, P, Q, E"
"""What chooses: predictions; measured single operators alone; the rules, among the orderings of a set."""
ANY = "any"
"""Instead of a set of operators where the choice is among all pipelines."""
COLUMNS = [
    "dataset", "metric", "rule", "operators", "budget", "chosen", "threshold",
    "accuracy_expected", "accuracy_low", "accuracy_high", "time_expected", "over_budget",
    "accuracy", "time_relative", "best", "best_accuracy", "regret",
    "two_seeds", "rank_correlation", "coverage_accuracy", "coverage_time", "trainings", "trainings_all",
]  # fmt: skip
"""A row per dataset, rule, set and budget. Accuracies are in the task's metric, fractions; times are over
O's; ``regret`` and ``two_seeds`` (how far two seeds of one pipeline are apart at this budget, a mean) are
percentage points. Where the choice takes longer than the budget (``over_budget``), ``accuracy`` and
``time_relative`` are those of its largest threshold that does not. The last five are of the predictions, and
NaN for other rules."""
_ROUNDING = 1e-9  # sums of the same times in another order differ


def regret(replays: Replays) -> pd.DataFrame:
    """Choose at every budget from runs of single operators, and compare with what was measured.

    Args:
        replays: every run of the study.

    Returns:
        Rows with ``COLUMNS``. Coverage is of the predictions' 90% intervals, by single seeds, over all
        thresholds; an interval is made from errors of the other sets of operators alone.
    """
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in replays.runs))
    return pd.concat([_of_dataset(dataset, replays) for dataset in datasets], ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise over the budgets.

    Args:
        table: as :func:`regret` returns it.

    Returns:
        A row per dataset, rule and set: means of regret, two_seeds and rank_correlation; worst: the largest
        regret; n: budgets; missed: those without a regret; over_budget: how many choices took too long;
        single: how many are single operators; the rest as it is.
    """
    single = [len(Pipeline(name).operators) == 1 if name else False for name in table["chosen"]]
    grouped = table.assign(single=single).groupby(["dataset", "metric", "rule", "operators"], sort=False)
    return grouped.agg(
        n=("budget", "size"),
        missed=("regret", lambda values: int(values.isna().sum())),
        over_budget=("over_budget", "sum"),
        single=("single", "sum"),
        regret=("regret", "mean"),
        worst=("regret", "max"),
        two_seeds=("two_seeds", "mean"),
        rank_correlation=("rank_correlation", "mean"),
        coverage_accuracy=("coverage_accuracy", "first"),
        coverage_time=("coverage_time", "first"),
        trainings=("trainings", "first"),
        trainings_all=("trainings_all", "first"),
    ).reset_index()


def _of_dataset(dataset: str, replays: Replays) -> pd.DataFrame:
    known = Predictor(dataset, replays, replays.prices(dataset))
    pipelines = [Pipeline(name) for name in trained_pipelines() if name in known.seeds]
    single = [str(pipeline) for pipeline in pipelines if len(pipeline.operators) == 1]
    measured, expected = tabulate(known, pipelines), tabulate(known, pipelines, measured=single)
    seeds = Seeds(known, pipelines)
    common = coverage(expected, seeds) | {
        "trainings": len(closure(map(Pipeline, single))),
        "trainings_all": len(closure(pipelines)),
    }
    drops = _drops(measured, single)
    rows: list[dict[str, Any]] = []
    for budget in budgets(measured):
        any_set = {"operators": ANY, "two_seeds": seeds.apart(pipelines, budget)}
        ranks = {"rank_correlation": rank_correlation(expected, measured, budget)}
        alone = expected[expected["kind"] == MEASURED]
        rows += [
            any_set | {"rule": CHOSEN} | choice(expected, measured, budget) | ranks | common,
            any_set | {"rule": SINGLE} | choice(alone, measured, budget),
        ]
        for operators, orders in _sets(pipelines, drops).items():
            noise = seeds.apart(orders, budget)
            among = measured[measured["pipeline"].isin(map(str, orders))]
            if (among["time_relative"] > budget).all():
                continue
            for rule, order in rules(operators, orders, drops).items():
                taken = choice(among[among["pipeline"] == str(order)], among, budget)
                rows.append({"rule": rule, "operators": operators, "two_seeds": noise} | taken)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    return table.assign(dataset=dataset, metric=known.metric.name)


def budgets(measured: pd.DataFrame) -> list[float]:
    """``BUDGETS`` times over O's, log-spaced from the fastest point to O's time, ascending.

    Args:
        measured: as ``predict.predict`` returns it, O among the pipelines.
    """
    times = measured["time_relative"]
    original = times[(measured["pipeline"] == "O") & (measured["inference"] == "")]
    spaced = np.geomspace(times.min(), original.iloc[0], BUDGETS)
    return [float(budget) for budget in spaced * (1 + _ROUNDING)]


def choice(expected: pd.DataFrame, measured: pd.DataFrame, budget: float) -> dict[str, Any]:
    """Choose under a budget of time by what is expected, and say what that is worth.

    Args:
        expected: what may be chosen: rows as ``predict.predict`` returns them.
        measured: the same rows and others, as measured; some of them so fast.
        budget: over O's time.

    Returns:
        Values of ``COLUMNS``. The regret is NaN where nothing is expected to be so fast, or no threshold of
        what is chosen is.
    """
    within = measured[measured["time_relative"] <= budget]
    best = within.iloc[int(within["accuracy"].to_numpy().argmax())]
    row: dict[str, Any] = {
        "budget": budget,
        "chosen": "",
        "over_budget": False,
        "best": name_of(best),
        "best_accuracy": best["accuracy"],
        "regret": math.nan,
    }
    fitting = expected[expected["time_relative"] <= budget]
    if fitting.empty:
        return row
    chosen = most_accurate(fitting).iloc[0]
    same = (measured["pipeline"] == chosen["pipeline"]) & (measured["inference"] == chosen["inference"])
    points = measured[same].sort_values("threshold")
    # The chosen threshold or, if that takes longer, the largest below it that does not.
    reached = points[(points["time_relative"] <= budget) & ~(points["threshold"] > chosen["threshold"])]
    row |= {
        "chosen": name_of(chosen),
        "threshold": chosen["threshold"],
        "accuracy_expected": chosen["accuracy"],
        "accuracy_low": chosen["accuracy_low"],
        "accuracy_high": chosen["accuracy_high"],
        "time_expected": chosen["time_relative"],
    }
    if reached.empty:
        return row | {"over_budget": True}
    taken = reached.iloc[-1]
    return row | {
        "over_budget": bool(taken["threshold"] < chosen["threshold"]),
        "accuracy": taken["accuracy"],
        "time_relative": taken["time_relative"],
        "regret": 100 * (best["accuracy"] - taken["accuracy"]),
    }


def rank_correlation(expected: pd.DataFrame, measured: pd.DataFrame, budget: float) -> float:
    """Spearman's, of predicted with measured accuracy under a budget, over the pipelines that are predicted.

    Returns:
        NaN with fewer than three, or if all are alike.
    """
    predicted = expected[expected["kind"] == PREDICTED]
    accuracies = [
        table[table["time_relative"] <= budget].groupby("pipeline")["accuracy"].max()
        for table in (predicted, measured)
    ]
    both = pd.concat(accuracies, axis=1, join="inner").to_numpy()
    if len(both) < 3 or (np.ptp(both, axis=0) == 0).any():
        return math.nan
    return float(spearmanr(both[:, 0], both[:, 1]).statistic)


class Seeds:
    """What single seeds of the measured pipelines give."""

    def __init__(self, known: Predictor, pipelines: Iterable[Pipeline]) -> None:
        self.curves = {
            (str(pipeline), inference): known.measured(pipeline, inference)
            for pipeline in pipelines
            for inference in INFERENCE
        }

    def within(self, pipeline: Pipeline, budget: float) -> FloatArray:
        """The best accuracy of every seed under a budget, shape (seeds,); -inf where nothing is so fast."""
        curves = [self.curves[str(pipeline), inference] for inference in INFERENCE]
        accuracy, time = (np.hstack([getattr(c, name) for c in curves]) for name in ("accuracy", "time"))
        return np.where(time <= budget, accuracy, -math.inf).max(axis=1)

    def apart(self, pipelines: Iterable[Pipeline], budget: float) -> float:
        """How far two seeds of one pipeline are apart under a budget, points: mean over pipelines and pairs.

        NaN with one seed.
        """
        found = []
        for pipeline in pipelines:
            reached = self.within(pipeline, budget)
            if np.isfinite(reached).all():
                found += [abs(a - b) for a, b in combinations(reached, 2)]
        return 100 * float(np.mean(found)) if found else math.nan


def coverage(expected: pd.DataFrame, seeds: Seeds) -> dict[str, float]:
    """How much of what single seeds gave lies in the intervals that were predicted; NaN without intervals.

    Args:
        expected: as ``predict.predict`` returns it.
        seeds: what was measured of the same pipelines.
    """
    inside: dict[str, list[NDArray[np.bool_]]] = {"accuracy": [], "time": []}
    groups: Any = expected[expected["kind"] == PREDICTED].groupby(["pipeline", "inference"], sort=False)
    for key, rows in groups:
        for name, found in inside.items():
            ends = rows[[f"{name}_low", f"{name}_high"]].to_numpy()
            values = getattr(seeds.curves[key], name)
            low, high = (ends + np.array([-_ROUNDING, _ROUNDING]) * np.abs(ends)).T
            # A time that is the price itself, without exits or where all leave at once, is no prediction.
            predicted = high - low > 4 * _ROUNDING * np.abs(low)
            found.append(((low <= values) & (values <= high))[:, predicted].ravel())
    return {
        f"coverage_{name}": float(np.mean(covered)) if covered.size else math.nan
        for name, covered in ((name, np.concatenate(found)) for name, found in inside.items() if found)
    }


def weaker_first(operators: Iterable[str], drops: Mapping[str, float]) -> str:
    """Order operators by what each alone costs in accuracy, the least first (arXiv 2603.18426)."""
    return "".join(sorted(operators, key=lambda letter: (drops[letter], letter)))


def nearest_ordering(wanted: str, orders: Sequence[Pipeline]) -> Pipeline:
    """The ordering that puts the fewest pairs of operators the other way round; of several the first.

    A rule may want an order that is none, such as one with D after P.
    """

    def exchanged(order: Pipeline) -> int:
        place = {letter: index for index, letter in enumerate(order.trained)}
        return sum(place[a] > place[b] for a, b in combinations(wanted, 2))

    return min(orders, key=exchanged)


def rules(operators: str, orders: Sequence[Pipeline], drops: Mapping[str, float]) -> dict[str, Pipeline]:
    """Which ordering of a set each rule takes."""
    found = {WEAKER: nearest_ordering(weaker_first(operators, drops), orders)}
    if set(operators) <= set("DPE"):
        found[SORTED] = nearest_ordering("".join(letter for letter in "DPE" if letter in operators), orders)
    return found


def _drops(measured: pd.DataFrame, single: Iterable[str]) -> dict[str, float]:
    """What each single operator costs in accuracy, at full depth and without L and Q; a fraction."""
    plain = measured[measured["inference"] == ""].sort_values("threshold")
    deepest = plain.groupby("pipeline")["accuracy"].last()
    return {name: float(deepest["O"] - deepest[name]) for name in single if name != "O"}


def _sets(pipelines: Iterable[Pipeline], drops: Mapping[str, float]) -> dict[str, list[Pipeline]]:
    """The sets of operators with several measured orderings, whose operators were measured alone."""
    found: dict[str, list[Pipeline]] = {}
    for pipeline in pipelines:
        if set(pipeline.operators) <= set(drops):
            found.setdefault(pipeline.operators, []).append(pipeline)
    return {operators: orders for operators, orders in found.items() if len(orders) > 1}
