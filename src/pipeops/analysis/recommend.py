"""Which pipeline to take under a budget: one answer, and the runners-up."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeops.errors import PipeOpsError
from pipeops.models.shape import INT8_SHARE
from pipeops.pipeline import Pipeline

MAX_DROP = 1.0
"""Percentage points of accuracy that Q may cost unless told otherwise."""
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
    """A fraction."""
    max_drop: float | None = None
    """Percentage points below O; also what Q may cost (else `MAX_DROP`)."""
    max_size: float | None = None
    """MB of ``model.onnx``."""

    def __post_init__(self) -> None:
        options = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in options.items():
            if not 0 < value < math.inf and not (name == "max_drop" and value == 0):
                raise PipeOpsError(
                    f"--{name.replace('_', '-')}: {value:g} is no budget; give a number above 0"
                )
        if self.min_accuracy is not None and self.min_accuracy > 1:
            raise PipeOpsError(
                f"--min-accuracy: {self.min_accuracy:g} is more than 1; give a fraction such as 0.9"
            )
        if not set(options) - {"max_size"}:
            raise PipeOpsError(
                "no budget: give --max-time, --min-accuracy or --max-drop, such as --max-time 0.2 (of O)"
            )


def candidates(predictions: pd.DataFrame, *, max_drop: float = MAX_DROP) -> tuple[pd.DataFrame, list[str]]:
    """Leave out what Q makes worse: the quality gate.

    Args:
        predictions: as ``predict.predict`` returns them, of one dataset.
        max_drop: percentage points that Q may cost.

    Returns:
        The rows that pass, with ``size_mb``; and for every pipeline that was refused why, a line each.
    """
    keys = ["pipeline", "threshold"]
    table = predictions.assign(size_mb=_sizes(predictions))
    refused, kept = [], [table[~table["inference"].str.contains("Q")]]
    for letters, rows in table[table["inference"].str.contains("Q")].groupby("inference", sort=False):
        without = table[table["inference"] == str(letters).replace("Q", "")][
            [*keys, "accuracy", "time_relative"]
        ]
        both = rows.merge(without, on=keys, suffixes=("", "_without"), validate="one_to_one")
        cost = 100 * (both["accuracy_without"] - both["accuracy"])
        slower = both["time_relative"] >= both["time_relative_without"]
        passes = (cost <= max_drop) & ~slower
        kept.append(both[passes][table.columns])
        for pipeline, group in both[~passes].groupby("pipeline", sort=False):
            if slower[group.index].any():
                reason = "is not faster on this CPU"
            else:
                reason = f"costs {cost[group.index].max():.1f} points, more than {max_drop:g}"
            tried = (both["pipeline"] == pipeline).sum()
            refused.append(f"{pipeline}{letters}: Q {reason}; refused at {len(group)} of {tried} thresholds")
    return pd.concat(kept, ignore_index=True), refused


def recommend(predictions: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """Rank what meets a budget: the best threshold of every pipeline, best first.

    Under a budget of time the most accurate is best, of those alike the fastest. Without one the fastest that
    is accurate enough.

    Args:
        predictions: as :func:`candidates` returns them, of one dataset, O among them.
        budget: what is asked for.

    Returns:
        A row per (pipeline, inference), columns as given.

    Raises:
        PipeOpsError: nothing meets it; what comes nearest is named.
    """
    table = predictions
    least = _least_accuracy(table, budget)
    conditions: dict[str, pd.Series] = {}
    if budget.max_time_ms is not None:
        conditions["time"] = table["time_ms"] <= budget.max_time_ms
    if budget.max_time is not None:
        conditions["time"] = table["time_relative"] <= budget.max_time
    if budget.max_size is not None:
        conditions["size"] = table["size_mb"] <= budget.max_size
    if least > 0:
        conditions["accuracy"] = table["accuracy"] >= least
    meets = np.logical_and.reduce(list(conditions.values()))
    if not meets.any():
        raise PipeOpsError(_nearest(table, conditions))
    fitting = table[meets]
    if "time" in conditions:
        order = fitting.assign(rounded=(fitting["accuracy"] / _TIE).round()).sort_values(
            ["rounded", "time_relative"], ascending=[False, True], kind="stable"
        )
    else:
        order = fitting.sort_values(["time_relative", "accuracy"], ascending=[True, False], kind="stable")
    best = order.drop_duplicates(["pipeline", "inference"])
    return best[table.columns].reset_index(drop=True)


def name_of(row: pd.Series) -> str:
    """The pipeline with its inference letters, such as ``DELQ``."""
    return str(Pipeline.parse(f"{row['pipeline']}{row['inference']}"))


def _sizes(table: pd.DataFrame) -> pd.Series:
    share = np.where(table["inference"].str.contains("Q"), INT8_SHARE, 1.0)
    return table["parameters"] * 4 * share / 1e6


def _least_accuracy(table: pd.DataFrame, budget: Budget) -> float:
    """What the accuracy must be at least."""
    least = budget.min_accuracy or 0.0
    if budget.max_drop is not None:
        original = table[(table["pipeline"] == "O") & (table["inference"] == "")]
        if original.empty:
            raise PipeOpsError("--max-drop: O was not measured, so no drop is known; train O first")
        least = max(least, float(original["accuracy"].iloc[0]) - budget.max_drop / 100)
    return least


def _nearest(table: pd.DataFrame, conditions: dict[str, pd.Series]) -> str:
    """Say which single requirement must give way, and how far."""
    for name, column, best, unit in (
        ("time", "time_relative", "min", "of O's time"),
        ("size", "size_mb", "min", "MB"),
        ("accuracy", "accuracy", "max", "accuracy"),
    ):
        if name not in conditions:
            continue
        others = [met for other, met in conditions.items() if other != name]
        fitting = table[np.logical_and.reduce(others)] if others else table
        if not fitting.empty:
            row = fitting.loc[getattr(fitting[column], f"idx{best}")()]
            return (
                f"nothing meets this budget; nearest is {name_of(row)} with {row[column]:.3g} {unit} "
                f"(accuracy {100 * row['accuracy']:.1f}%, {row['time_ms']:.3g} ms, {row['size_mb']:.3g} MB)"
            )
    return "nothing meets this budget; loosen two of its numbers"
