"""Can a pipeline be predicted from its operators? Equations 1-5 of Xin et al. 2022, and their errors.

Equations 1-5 (section 6) predict E with D and P from runs of O, D, P and E alone. Q and L are added by
multiplying the fractions of the time that they leave. How much Q saves depends on the widths that P leaves.
So where both occur, they are measured as one operator, PQ. The estimate that treats them as independent is
computed beside it (``naive``).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pipeops.analysis.curves import FloatArray, TradeoffCurve, distance, mean_distance
from pipeops.analysis.runs import RUN
from pipeops.errors import PipeOpsError
from pipeops.pipeline import INFERENCE, orderings, parts_of

COMPOUND, NAIVE = "compound", "naive"
ERRORS = ["max_accuracy_error", "mean_accuracy_error", "mean_time_error"]
"""Errors of one estimated curve: largest and mean difference in accuracy at the same time, in percentage
points, and mean relative difference in time at the same threshold."""
POINT = [
    "seed", "threshold", "accuracy", "accuracy_estimated", "time_relative", "time_relative_estimated",
]  # fmt: skip
CURVE = ["dataset", "operators", "pipeline", "inference", "estimate"]
"""Columns that name an estimated curve, up to its seed."""


def estimate_accuracy(
    accuracy_e: ArrayLike,
    accuracy_o: float,
    *,
    accuracy_d: float | None = None,
    accuracy_p: float | None = None,
) -> FloatArray:
    """Estimate the accuracy of a pipeline to which D, P or both are added (equations 1 and 2).

    A_{R+D} = A_D / A_O * A_R, and A_{R+P} = A_P / A_O * A_R.

    Args:
        accuracy_e: of the pipeline without them (E), any shape.
        accuracy_o: of the original model, in the same unit.
        accuracy_d: of D alone, where D is added.
        accuracy_p: of P alone, where P is added.
    """
    result = np.asarray(accuracy_e, float)
    for part in (accuracy_d, accuracy_p):
        if part is not None:
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


def cumulativeness(measurements: pd.DataFrame, operator_sets: Iterable[str]) -> pd.DataFrame:
    """Estimate every measured ordering of every operator set, for each dataset and seed.

    Args:
        measurements: as ``measurements.read_runs`` returns them.
        operator_sets: sets of E with D, P or both.

    Returns:
        A row per point: columns ``CURVE``, seed, threshold, the measured and the estimated accuracy and
        ``time_relative``, and the curve's ``ERRORS``. The estimate is ``compound`` or, where P and Q both
        occur, also ``naive``.

    Raises:
        PipeOpsError: an operator of a set, or every ordering of a set, was not measured.
    """
    tables = [
        _compared(parts, operators, str(ordering), inference, estimate)
        for operators in operator_sets
        for _, parts in measurements.groupby(["dataset", "seed"], sort=False)
        for ordering in _measured_orders(parts, operators)
        for inference in INFERENCE
        for estimate in ((COMPOUND, NAIVE) if "P" in operators and "Q" in inference else (COMPOUND,))
    ]
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


def _compared(
    runs: pd.DataFrame, operators: str, ordering: str, inference: str, estimate: str
) -> pd.DataFrame:
    """Measured and estimated points of one run, with the errors of the curve."""
    measured = _curve(runs, ordering, inference)
    accuracy, time = _estimated(runs, operators, inference, compound=estimate == COMPOUND)
    if not measured["threshold"].equals(_curve(runs, "E", "")["threshold"]):
        raise PipeOpsError(f"{ordering}: measured at other thresholds than E; delete its curve and run again")
    named = measured[["dataset"]].assign(
        operators=operators, pipeline=ordering, inference=inference, estimate=estimate
    )
    points = measured[["seed", "threshold", "accuracy"]].assign(
        accuracy_estimated=accuracy,
        time_relative=measured["time_relative"],
        time_relative_estimated=time,
    )
    curve = TradeoffCurve(points["time_relative"].to_numpy(), points["accuracy"].to_numpy())
    predicted = TradeoffCurve(time, accuracy)
    errors = (
        distance(predicted, curve),
        mean_distance(predicted, curve),
        float(np.abs(time / points["time_relative"] - 1).mean()),
    )
    return named.join(points).assign(**dict(zip(ERRORS, errors, strict=True)))


def _estimated(
    runs: pd.DataFrame, operators: str, inference: str, *, compound: bool
) -> tuple[FloatArray, FloatArray]:
    """Estimate accuracy and relative time at every threshold of E, from the runs of one dataset and seed."""
    curve, original = _curve(runs, "E", ""), _point(runs, "O", "", operators)
    pruned_with = "Q" if compound and "Q" in inference else ""
    d = _point(runs, "D", "", operators) if "D" in operators else None
    p = _point(runs, "P", pruned_with, operators) if "P" in operators else None
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
        alone = _point(runs, "O", letter, operators)
        savings.append(1 - alone["time_relative"] / original["time_relative"])
        accuracy = accuracy * (alone["accuracy"] / original["accuracy"])
    return accuracy, time * (1 - combined_saving(*savings))


def _measured_orders(runs: pd.DataFrame, operators: str) -> Sequence[str]:
    dataset, measured = runs["dataset"].iloc[0], set(runs["pipeline"])
    if missing := [part for part in parts_of(operators) if part not in measured]:
        raise PipeOpsError(
            f"cumulativeness: '{operators}' on {dataset} is estimated from {', '.join(parts_of(operators))}, "
            f"but {', '.join(missing)} was not measured; add it to pipelines: [{', '.join(missing)}]"
        )
    found = [str(order) for order in orderings(operators) if str(order) in measured]
    if not found:
        raise PipeOpsError(
            f"cumulativeness: no ordering of '{operators}' was measured on {dataset}; "
            f"add it to operator_sets: [{operators}]"
        )
    return found


def _curve(runs: pd.DataFrame, pipeline: str, inference: str) -> pd.DataFrame:
    """Rows of one pipeline, numbered from 0 by ascending threshold."""
    rows = runs[(runs["pipeline"] == pipeline) & (runs["inference"] == inference)]
    if rows.empty:
        run = " ".join(str(runs[column].iloc[0]) for column in RUN if column != "pipeline")
        raise PipeOpsError(f"{run}: {pipeline} was not measured with {inference or 'no inference operators'}")
    return rows.sort_values("threshold").reset_index(drop=True)


def _point(runs: pd.DataFrame, pipeline: str, inference: str, operators: str) -> pd.Series:
    """Return the one row of a pipeline without exits."""
    rows = _curve(runs, pipeline, inference)
    if len(rows) != 1:
        raise PipeOpsError(
            f"cumulativeness: '{operators}' needs {pipeline} without exits, but it has {len(rows)} rows"
        )
    return rows.iloc[0]
