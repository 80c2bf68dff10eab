"""Which pipeline to take under a budget: one answer, and the runners-up."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeops.analysis.metrics import quality
from pipeops.errors import PipeOpsError
from pipeops.models.shape import INT8_SHARE
from pipeops.pipeline import Pipeline

MAX_DROP = 1.0
"""Percentage points of the metric that Q, and leaving early, may cost unless told otherwise."""
QUANTISED, EARLY = "Q", "leaving early"
"""What the quality gate refuses."""
_MEASURES = ["accuracy", "time_relative"]
_ROUNDING = 1e-9  # of differences between fractions, in points
_TIE = 1e-4  # of accuracy: two that differ by less are equal, and the faster one is taken


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an answer may cost and must reach; None: no matter.

    Raises:
        PipeOpsError: a number makes no sense, or nothing is asked for.
    """

    max_time_ms: float | None = None
    """Milliseconds an input, on the CPU of the prices."""
    max_time: float | None = None
    """The same over O's time, padded."""
    min_accuracy: float | None = None
    """Of the task's metric, a fraction."""
    max_drop: float | None = None
    """Percentage points below O; also what Q, and leaving early, may cost (else `MAX_DROP`)."""
    max_size: float | None = None
    """MB of ``model.onnx``."""

    def __post_init__(self) -> None:
        options = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in options.items():
            if not 0 < value < math.inf and not (name == "max_drop" and value == 0):
                option = f"--{name.removesuffix('_ms').replace('_', '-')}"
                raise PipeOpsError(f"{option}: {value:g} is no budget; give a number above 0")
        if self.min_accuracy is not None and self.min_accuracy > 1:
            raise PipeOpsError(
                f"--min-accuracy: {self.min_accuracy:g} is more than 1; give a fraction such as 0.9"
            )
        if not set(options) - {"max_size"}:
            raise PipeOpsError(
                "no budget: give --max-time, --min-accuracy or --max-drop, such as --max-time 0.2 (of O)"
            )


def candidates(predictions: pd.DataFrame, *, max_drop: float = MAX_DROP) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out what makes a pipeline worse or no faster: the quality gate.

    Q stands beside the same pipeline and threshold without Q, leaving early beside the same pipeline at its
    highest threshold. There no input leaves early, unless patiences are given that are all smaller.

    Args:
        predictions: as ``predict.predict`` returns them, of one dataset.
        max_drop: percentage points that either may cost.

    Returns:
        The rows that pass, with ``size_mb``; and those that do not, which also say ``what`` was refused
        (`QUANTISED` or `EARLY`; of both what is not faster, else what costs more), its ``cost`` in points,
        and whether it is ``faster``.
    """
    table = predictions.assign(size_mb=_sizes(predictions))
    judged = []
    for what, beside in ((QUANTISED, _without_q(table)), (EARLY, _never_leaving(table))):
        cost = 100 * (beside["accuracy"] - table["accuracy"])
        faster = table["time_relative"] < beside["time_relative"]
        worse = beside["accuracy"].notna() & ((cost > max_drop + _ROUNDING) | ~faster)
        judged.append(table.assign(what=what, cost=cost, faster=faster)[worse])
    refused = pd.concat(judged).sort_values(["faster", "cost"], ascending=[True, False], kind="stable")
    refused = refused[~refused.index.duplicated()].sort_index()
    return table.drop(refused.index).reset_index(drop=True), refused.reset_index(drop=True)


def refusals(refused: pd.DataFrame, tried: pd.DataFrame, *, max_drop: float) -> list[str]:
    """Say what the gate refused, a line for each pipeline and reason.

    Args:
        refused: as :func:`candidates` returns it.
        tried: what it was given.
        max_drop: as it was given.
    """
    lines = []
    groups: Any = refused.groupby(["pipeline", "inference", "what"], sort=False)
    for (pipeline, inference, what), rows in groups:
        if rows["faster"].all():
            reason = f"costs up to {rows['cost'].max():.1f} points, more than {max_drop:g}"
        else:
            reason = "is not faster on this CPU"
        of = ((tried["pipeline"] == pipeline) & (tried["inference"] == inference)).sum()
        lines.append(f"{name_of(rows.iloc[0])}: {what} {reason}; refused at {len(rows)} of {of} thresholds")
    return lines


def recommend(
    predictions: pd.DataFrame, budget: Budget, *, refused: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Rank what meets a budget: the best threshold of every pipeline, best first.

    Under a budget of time the most accurate is best, of those alike the fastest. Without one the fastest that
    is accurate enough.

    Args:
        predictions: as :func:`candidates` returns them, of one dataset, O among them.
        budget: what is asked for.
        refused: what the gate refused, to be named where nothing else meets the budget.

    Returns:
        A row per (pipeline, inference), columns as given.

    Raises:
        PipeOpsError: nothing meets it; what comes nearest is named.
    """
    original = _original(predictions)
    conditions = _conditions(predictions, budget, original)
    meets = np.logical_and.reduce(list(conditions.values()))
    if not meets.any():
        raise PipeOpsError(_nearest(predictions, conditions) + _behind_the_gate(refused, budget, original))
    fitting = predictions[meets]
    if "time" in conditions:
        return most_accurate(fitting)
    order = fitting.sort_values(["time_relative", "accuracy"], ascending=[True, False], kind="stable")
    return order.drop_duplicates(["pipeline", "inference"]).reset_index(drop=True)


def most_accurate(table: pd.DataFrame) -> pd.DataFrame:
    """The best threshold of every (pipeline, inference), best first; of those alike the fastest.

    Args:
        table: with pipeline, inference, accuracy and time_relative; of equals the first row is taken.
    """
    order = table.assign(rounded=(table["accuracy"] / _TIE).round()).sort_values(
        ["rounded", "time_relative"], ascending=[False, True], kind="stable"
    )
    return order.drop_duplicates(["pipeline", "inference"])[table.columns].reset_index(drop=True)


def name_of(row: pd.Series) -> str:
    """The pipeline with its inference letters, such as ``DELQ``."""
    return str(Pipeline.parse(f"{row['pipeline']}{row['inference']}"))


def _without_q(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and time without Q, row by row; NaN where there is none."""
    keys = ["pipeline", "inference", "threshold"]
    asked = table[keys].assign(inference=table["inference"].str.replace("Q", ""))
    found = asked.merge(table, on=keys, how="left", validate="many_to_one").set_index(table.index)
    return found[_MEASURES].where(table["inference"].str.contains("Q"))


def _never_leaving(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and time at the highest threshold, row by row; NaN where no input leaves early either."""
    by_threshold = table.sort_values("threshold").groupby(["pipeline", "inference"], sort=False)
    deepest = by_threshold[_MEASURES].transform("last").loc[table.index]
    return deepest.where(deepest["time_relative"] != table["time_relative"])


def _sizes(table: pd.DataFrame) -> pd.Series:
    share = np.where(table["inference"].str.contains("Q"), INT8_SHARE, 1.0)
    return table["parameters"] * 4 * share / 1e6


def _original(table: pd.DataFrame) -> float | None:
    """O's accuracy, a fraction; None where it is not known."""
    rows = table[(table["pipeline"] == "O") & (table["inference"] == "")]
    return None if rows.empty else float(rows["accuracy"].iloc[0])


def _conditions(table: pd.DataFrame, budget: Budget, original: float | None) -> dict[str, pd.Series]:
    """What a budget asks for, by name, row by row."""
    found: dict[str, pd.Series] = {}
    if budget.max_time_ms is not None:
        found["time"] = table["time_ms"] <= budget.max_time_ms
    if budget.max_time is not None:
        found["time"] = table["time_relative"] <= budget.max_time
    if budget.max_size is not None:
        found["size"] = table["size_mb"] <= budget.max_size
    least = -math.inf if budget.min_accuracy is None else budget.min_accuracy
    if budget.max_drop is not None:
        if original is None:
            raise PipeOpsError("--max-drop: O was not measured, so no drop is known; train O first")
        least = max(least, original - budget.max_drop / 100)
    if least > -math.inf:
        found["accuracy"] = table["accuracy"] >= least
    return found


def _behind_the_gate(refused: pd.DataFrame | None, budget: Budget, original: float | None) -> str:
    """Name the best of what only costs too much, and the option that lets it pass; empty if there is none."""
    if refused is None or refused.empty or original is None:
        return ""
    conditions = _conditions(refused, budget, original).values()
    meets = refused[np.logical_and.reduce([refused["faster"], *conditions])]
    if meets.empty:
        return ""
    best = most_accurate(meets).iloc[0]
    needed = max(best["cost"], 100 * (original - best["accuracy"]))
    at = "" if pd.isna(best["threshold"]) else f" at threshold {best['threshold']:g}"
    return (
        f"; the gate refused {name_of(best)}{at} ({_quality(best)}, "
        f"{best['time_ms']:.3g} ms), as {best['what']} costs {best['cost']:.1f} points; "
        f"--max-drop {math.ceil(10 * needed - _ROUNDING) / 10:g} allows it"
    )


def _nearest(table: pd.DataFrame, conditions: dict[str, pd.Series]) -> str:
    """Say which single requirement must give way, and how far."""
    for name, column, best, unit in (
        ("time", "time_relative", "min", "of O's time"),
        ("size", "size_mb", "min", "MB"),
        ("accuracy", "accuracy", "max", quality(table["metric"])),
    ):
        if name not in conditions:
            continue
        others = [met for other, met in conditions.items() if other != name]
        fitting = table[np.logical_and.reduce(others)] if others else table
        if not fitting.empty:
            row = fitting.loc[getattr(fitting[column], f"idx{best}")()]
            return (
                f"nothing meets this budget; nearest is {name_of(row)} with {row[column]:.3g} {unit} "
                f"({_quality(row)}, {row['time_ms']:.3g} ms, {row['size_mb']:.3g} MB)"
            )
    return "nothing meets this budget; loosen two of its numbers"


def _quality(row: pd.Series) -> str:
    return f"{quality([row['metric']])} {100 * row['accuracy']:.1f}%"
