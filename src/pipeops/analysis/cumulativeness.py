"""Can a pipeline be predicted from its operators? Equations 1-5 of Xin et al. 2022, and their errors.

Equations 1-5 (section 6) predict E with D and P from runs of O, D, P and E alone. Q and L are added by
multiplying the fractions of the time that they leave. How much Q saves depends on the widths that P leaves.
So where both occur, they are measured as one operator, PQ. The estimate that treats them as independent is
computed beside it (``naive``).

Time need not be estimated: what leaving at an exit costs is priced before any training. So a third estimate
(``priced``) takes accuracy from equations 1 and 2, lets every input leave where E lets it leave, at the layer
that corresponds, and pays the price of leaving there.

An error says little by itself. Two yardsticks stand beside every estimate, computed like one: the curve of
``another seed``, which is as good as a prediction can be, and ``E itself``, as if D and P did nothing.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pipeops.analysis.curves import FloatArray, distance, mean_distance
from pipeops.analysis.replays import Replays
from pipeops.analysis.runs import curve_of
from pipeops.errors import PipeOpsError
from pipeops.pipeline import INFERENCE, orderings, parts_of

COMPOUND, NAIVE, PRICED = "compound", "naive", "priced"
ANOTHER_SEED, UNCHANGED = "another seed", "E itself"
ESTIMATES = (COMPOUND, NAIVE, PRICED, ANOTHER_SEED, UNCHANGED)
"""What a curve is predicted by; the last two are yardsticks."""
ERRORS = ["max_accuracy_error", "mean_accuracy_error", "mean_time_error"]
"""Errors of one estimated curve: largest and mean difference in accuracy at the same time, in percentage
points, and mean relative difference in time at the same threshold."""
POINT = [
    "seed", "threshold", "accuracy", "accuracy_estimated", "time_relative", "time_relative_estimated",
]  # fmt: skip
CURVE = ["dataset", "metric", "operators", "pipeline", "inference", "estimate"]
"""Columns that name an estimated curve, up to its seed."""


def estimate_accuracy(
    accuracy_e: ArrayLike,
    accuracy_o: float,
    *,
    accuracy_d: float | None = None,
    accuracy_p: float | None = None,
    accuracy_v: float | None = None,
) -> FloatArray:
    """Estimate the accuracy of a pipeline to which D, P or both are added (equations 1 and 2), or V.

    A_{R+D} = A_D / A_O * A_R, and A_{R+P} = A_P / A_O * A_R. They are stated for accuracy; a task's other
    metric takes its place. V is taken alike; the paper does not have it.

    Args:
        accuracy_e: of the pipeline without them (E), any shape.
        accuracy_o: of the original model, in the same unit.
        accuracy_d: of D alone, where D is added.
        accuracy_p: of P alone, where P is added.
        accuracy_v: of V alone, where V is added.

    Raises:
        PipeOpsError: the original model has none, as MCC may be 0 or less, so that there is no ratio to it.
    """
    result = np.asarray(accuracy_e, float)
    for part in (accuracy_d, accuracy_p, accuracy_v):
        if part is not None:
            if accuracy_o <= 0:
                raise PipeOpsError(
                    f"O has {accuracy_o:.3g} in the task's metric, so equations 1 and 2 cannot scale by it; "
                    "train O until it is better than chance"
                )
            result = result * (part / accuracy_o)
    return result


def estimate_time(
    time_e: ArrayLike, time_o: float, *, time_d: float | None = None, time_p: float | None = None
) -> FloatArray:
    """Estimate the time of a pipeline with E to which D, P or both are added (equations 3 to 5).

    T_{E+P} = T_P / T_O * T_E, as width and depth are independent. D and E both reduce the depth:
    T_{E+D} = t_E + (T_E - t_E) * T_D / T_O, where t_E is the least time on E's curve. Both: the product.

    Args:
        time_e: of every point of E's curve, shape (points,).
        time_o: of the original model, in the same unit.
        time_d: of D alone, where D is added.
        time_p: of P alone, where P is added.
    """
    result = np.asarray(time_e, float)
    if time_d is not None:
        least = result.min()
        result = least + (result - least) * (time_d / time_o)
    if time_p is not None:
        result = result * (time_p / time_o)
    return result


def combined_saving(*savings: ArrayLike) -> FloatArray:
    """Combine savings of cumulative operators: the fractions of the time that they leave are multiplied.

    Args:
        savings: fractions of the time that each saves, 0..1, of any common shape.
    """
    left = np.ones(())
    for saving in savings:
        left = left * (1 - np.asarray(saving, float))
    return 1 - left


def cumulativeness(
    measurements: pd.DataFrame, operator_sets: Iterable[str], replays: Replays | None = None
) -> pd.DataFrame:
    """Estimate every measured ordering of every operator set, for each dataset and seed.

    Args:
        measurements: as ``runs.read_runs`` returns them.
        operator_sets: sets of E with D, P or both.
        replays: answers and prices of the same runs, for the estimate ``priced``.

    Returns:
        A row per point: columns ``CURVE``, seed, threshold, the measured and the estimated accuracy and
        ``time_relative``, and the curve's ``ERRORS``. The estimate is ``compound``; where P and Q both
        occur, also ``naive``; with ``replays`` also ``priced``; and the yardsticks, ``another seed`` (of the
        same ordering, the next one; with two seeds or more) and ``E itself``.

    Raises:
        PipeOpsError: an operator of a set, or every ordering of a set, was not measured; E was measured at
            other thresholds, or at none that lets every input leave at once.
    """
    tables = []
    for dataset, runs in measurements.groupby("dataset", sort=False):
        study = _Study(str(dataset), runs, replays)
        for operators in operator_sets:
            for ordering in study.measured_orders(operators):
                for seed in study.seeds:
                    tables += study.compared(operators, ordering, seed)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*CURVE, *POINT, *ERRORS])


def summary(study: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample SD over the seeds of each curve's errors: a row per ``CURVE``.

    Returns:
        Columns ``CURVE``, n_seeds, for each of ``ERRORS`` its ``_mean`` and ``_sd`` (NaN with one seed), and
        the mean measured and estimated accuracy and ``time_relative`` at the highest threshold.
    """
    deepest = study.sort_values("threshold").drop_duplicates([*CURVE, "seed"], keep="last").sort_index()
    grouped = deepest.groupby(CURVE, sort=False)
    columns = {"n_seeds": ("seed", "size")} | {name: (name, "mean") for name in POINT[2:]}
    for error in ERRORS:
        columns |= {f"{error}_mean": (error, "mean"), f"{error}_sd": (error, "std")}
    return grouped.agg(**columns).reset_index()


class _Study:
    """The runs of one dataset, each looked up once."""

    def __init__(self, dataset: str, runs: pd.DataFrame, replays: Replays | None) -> None:
        self.dataset, self.replays = dataset, replays
        self.pipelines, self.seeds = set(runs["pipeline"]), list(dict.fromkeys(runs["seed"]))
        groups: Any = runs.sort_values("threshold").groupby(["pipeline", "inference", "seed"], sort=False)
        self._curves = {key: rows.reset_index(drop=True) for key, rows in groups}

    def measured_orders(self, operators: str) -> list[str]:
        """The orderings of a set that were measured, if its parts were."""
        parts = parts_of(operators)
        if missing := [part for part in parts if part not in self.pipelines]:
            raise PipeOpsError(
                f"cumulativeness: '{operators}' on {self.dataset} is estimated from {', '.join(parts)}, "
                f"but {', '.join(missing)} was not measured; add it to pipelines: [{', '.join(missing)}]"
            )
        found = [str(order) for order in orderings(operators) if str(order) in self.pipelines]
        if not found:
            raise PipeOpsError(
                f"cumulativeness: no ordering of '{operators}' was measured on {self.dataset}; "
                f"add it to operator_sets: [{operators}]"
            )
        return found

    def compared(self, operators: str, ordering: str, seed: int) -> list[pd.DataFrame]:
        """Measured and predicted points of one run, by every estimate, with the errors of the curve."""
        tables = []
        for inference in INFERENCE:
            curve = self._curve(ordering, inference, seed)
            measured = curve[curve["threshold"].isin(self._curve("E", "", seed)["threshold"])]
            # By patience a model of fewer exits has fewer thresholds than E.
            if len(measured) < len(curve):
                raise PipeOpsError(
                    f"{ordering}: measured at other thresholds than E; delete its curve and run again"
                )
            named = curve[["dataset", "metric"]].assign(
                operators=operators, pipeline=ordering, inference=inference
            )
            for estimate, predicted in self._predictions(operators, ordering, inference, seed).items():
                points = predicted[predicted["threshold"].isin(curve["threshold"])]
                tables.append(named.assign(estimate=estimate).join(_with_errors(curve, points)))
        return tables

    def _predictions(
        self, operators: str, ordering: str, inference: str, seed: int
    ) -> dict[str, pd.DataFrame]:
        """Threshold, accuracy and time_relative, by estimate."""
        found = {COMPOUND: self._estimated(operators, inference, seed, compound=True)}
        if "P" in operators and "Q" in inference:
            found[NAIVE] = self._estimated(operators, inference, seed, compound=False)
        if self.replays is not None:
            found[PRICED] = found[COMPOUND].assign(time_relative=self._priced(ordering, inference, seed))
        if len(self.seeds) > 1:
            following = self.seeds[(self.seeds.index(seed) + 1) % len(self.seeds)]
            found[ANOTHER_SEED] = self._curve(ordering, inference, following)
        found[UNCHANGED] = self._curve("E", inference, seed)
        return found

    def _estimated(self, operators: str, inference: str, seed: int, *, compound: bool) -> pd.DataFrame:
        """Equations 1-5: accuracy and relative time at every threshold of E."""

        def point(pipeline: str, letters: str) -> pd.Series:
            return self._point(pipeline, letters, seed, operators)

        curve, original = self._curve("E", "", seed), point("O", "")
        if "D" in operators and curve["mean_exit_layer"].iloc[0] > 1:
            raise PipeOpsError(
                f"cumulativeness: '{operators}' needs the time of always leaving E at its first exit (t_E), "
                f"but at the lowest threshold, {curve['threshold'].iloc[0]:g}, inputs go on; add 0 to "
                "measuring.thresholds"
            )
        pruned_with = "Q" if compound and "Q" in inference else ""
        d = point("D", "") if "D" in operators else None
        p = point("P", pruned_with) if "P" in operators else None
        accuracy = estimate_accuracy(
            curve["accuracy"].to_numpy(),
            original["accuracy"],
            accuracy_d=None if d is None else d["accuracy"],
            accuracy_p=None if p is None else p["accuracy"],
        )
        time = estimate_time(
            curve["time_relative"].to_numpy(),
            original["time_relative"],
            time_d=None if d is None else d["time_relative"],
            time_p=None if p is None else p["time_relative"],
        )
        independent = inference.replace("Q", "") if "P" in operators and compound else inference
        savings = []
        for letter in independent:
            alone = point("O", letter)
            savings.append(1 - alone["time_relative"] / original["time_relative"])
            accuracy = accuracy * (alone["accuracy"] / original["accuracy"])
        time = time * (1 - combined_saving(*savings))
        return curve[["threshold"]].assign(accuracy=accuracy, time_relative=time)

    def _priced(self, ordering: str, inference: str, seed: int) -> FloatArray:
        """Time over O's at every threshold if inputs leave where they leave E, at the price of leaving there.

        Layer l of E's L layers corresponds to layer l * K / L, rounded up, of a model of K layers.
        """
        assert self.replays is not None
        of_e, ours = (self.replays.runs[self.dataset, name, seed] for name in ("E", ordering))
        layers = np.array(of_e.shape.exit_layers)[self.replays.leaving((self.dataset, "E", seed), inference)]
        corresponding = -(-layers * ours.shape.num_layers // of_e.shape.num_layers)
        exits = np.searchsorted(ours.shape.exit_layers, corresponding)
        costs = ours.variants[inference].time_relative
        return costs[np.arange(len(costs)), exits].mean(axis=1)

    def _curve(self, pipeline: str, inference: str, seed: int) -> pd.DataFrame:
        """Rows of one run, numbered from 0 by ascending threshold."""
        try:
            return self._curves[pipeline, inference, seed]
        except KeyError:
            raise PipeOpsError(
                f"{self.dataset} {seed}: {pipeline} was not measured with "
                f"{inference or 'no inference operators'}"
            ) from None

    def _point(self, pipeline: str, inference: str, seed: int, operators: str) -> pd.Series:
        """The one row of a pipeline without exits."""
        rows = self._curve(pipeline, inference, seed)
        if len(rows) != 1:
            raise PipeOpsError(
                f"cumulativeness: '{operators}' needs {pipeline} without exits, but it has {len(rows)} rows"
            )
        return rows.iloc[0]


def _with_errors(measured: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Points measured and predicted at the same thresholds, with the errors of the curve."""
    accuracy, time = (predicted[name].to_numpy() for name in ("accuracy", "time_relative"))
    points = measured[["seed", "threshold", "accuracy"]].assign(
        accuracy_estimated=accuracy,
        time_relative=measured["time_relative"],
        time_relative_estimated=time,
    )
    curve, estimated = curve_of(measured), curve_of(predicted)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # A prediction may share no time with the curve; its errors in accuracy are NaN then.
        errors = (
            distance(estimated, curve),
            mean_distance(estimated, curve),
            float(np.abs(time / points["time_relative"] - 1).mean()),
        )
    return points.assign(**dict(zip(ERRORS, errors, strict=True)))
