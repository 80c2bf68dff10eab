"""Tradeoff curves: accuracy against inference time, and how far two of them are apart."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pipeops.errors import PipeOpsError

FloatArray = NDArray[np.float64]

_NUMBERS = ["accuracy", "time_ms", "time_relative", "mean_exit_layer", "flops_relative"]
_COLUMNS = ["inference", "threshold", *_NUMBERS]


@dataclass(frozen=True, eq=False)
class TradeoffCurve:
    """A piecewise linear curve through measured points (paper, section 5.2: one point per exit threshold).

    The points are sorted by time. Those at exactly the same time, as different thresholds give that let the
    same examples exit at the same layers, become one point with the mean of their accuracies.

    Raises:
        ValueError: the arrays are not 1-D, not of one length, empty, or hold something not finite.
    """

    time: FloatArray
    """Times, shape (points,), in any unit that all compared curves share."""
    accuracy: FloatArray
    """Accuracies, shape (points,), as fractions in 0..1."""

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

    def at(self, time: ArrayLike) -> FloatArray:
        """Interpolate the accuracy at these times; NaN where the curve has no such time."""
        return np.interp(np.asarray(time, float), self.time, self.accuracy, left=np.nan, right=np.nan)


def distance(a: TradeoffCurve, b: TradeoffCurve) -> float:
    """Return the largest accuracy difference at the same time (paper, section 5.2), in percentage points.

    It is taken over the times that both curves cover, which may be a single one, and is exact: between two
    neighbouring knots the difference is linear, so it is largest on a knot of either curve. NaN, with a
    warning, where the curves share no time.
    """
    start, end = max(a.time[0], b.time[0]), min(a.time[-1], b.time[-1])
    if start > end:
        warnings.warn(
            f"no distance between tradeoff curves that share no time: one ends at {end:.4g}, "
            f"the other begins at {start:.4g}",
            stacklevel=2,
        )
        return float("nan")
    knots = np.concatenate([a.time, b.time])
    knots = knots[(start <= knots) & (knots <= end)]
    return 100 * float(np.abs(a.at(knots) - b.at(knots)).max())


def read_curve(path: Path, *, inference: str = "") -> TradeoffCurve:
    """Read the curve of ``time_relative`` and ``accuracy`` from a file written by ``pipeops.measure``.

    Args:
        path: CSV with a row per (inference letters, threshold). The number of rows is checked against the
            JSON beside it, where there is one.
        inference: The inference letters whose rows are wanted, in the order L, Q; empty for neither.

    Raises:
        PipeOpsError: the file is absent, cut off or not such a file, or was not measured with ``inference``.
    """
    table = _read_measurements(path)
    measured = table["inference"].fillna("")
    rows = table[measured == inference]
    if rows.empty:
        found = ", ".join(letters or "(none)" for letters in measured.unique())
        raise PipeOpsError(
            f"{path}: not measured with inference operators {inference or '(none)'}, only with {found}; "
            "delete it and run again"
        )
    return TradeoffCurve(rows["time_relative"].to_numpy(), rows["accuracy"].to_numpy())


def _read_measurements(path: Path) -> pd.DataFrame:
    """Read the whole file, with every number in it checked."""
    remedy = "delete it and run again"
    try:
        with path.open("rb") as file:
            complete = file.read()[-1:] == b"\n"
        table = pd.read_csv(path, dtype={"inference": "str"} | dict.fromkeys(_NUMBERS, "float64"))
    except FileNotFoundError:
        raise PipeOpsError(f"{path}: not found; measure it first") from None
    except pd.errors.EmptyDataError:
        raise PipeOpsError(f"{path}: empty; {remedy}") from None
    except ValueError as error:  # ragged lines, text where a number belongs, bytes that are no text
        reason = " ".join(str(error).split())
        raise PipeOpsError(f"{path}: not a file of measurements ({reason}); {remedy}") from None
    if missing := [column for column in _COLUMNS if column not in table]:
        raise PipeOpsError(f"{path}: column {', '.join(missing)} is missing; {remedy}")
    if not complete:
        raise PipeOpsError(f"{path}: cut off in the middle of its last line; {remedy}")
    if table.empty:
        raise PipeOpsError(f"{path}: has no rows; {remedy}")
    details = path.with_suffix(".json")
    if details.exists() and (rows := json.loads(details.read_text())["rows"]) != len(table):
        raise PipeOpsError(f"{path}: has {len(table)} rows where {rows} were measured; {remedy}")
    for column in _NUMBERS:
        broken = ~np.isfinite(table[column].to_numpy())
        if broken.any():
            line = int(broken.argmax()) + 2  # counted from 1, after the header
            raise PipeOpsError(f"{path}: line {line} has no number in column {column}; {remedy}")
    if not table["accuracy"].between(0, 1).all():
        raise PipeOpsError(f"{path}: column accuracy must hold fractions from 0 to 1; {remedy}")
    return table
