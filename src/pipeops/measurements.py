"""What ``pipeops.measure`` wrote, read back and checked: the one input of every table and figure."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeops.curves import TradeoffCurve
from pipeops.errors import PipeOpsError

_NUMBERS = ["accuracy", "time_ms", "time_relative", "mean_exit_layer", "flops_relative"]
_COLUMNS = ["inference", "threshold", *_NUMBERS, "kernels"]
RUN = ["dataset", "pipeline", "seed"]
"""Columns that name a run: the trained pipeline on a dataset with a seed."""

Runs = dict[tuple[str, str, int], TradeoffCurve]


def read_measurements(path: Path) -> pd.DataFrame:
    """Read one file: a row per (inference letters, threshold), the threshold NaN for a single exit.

    Args:
        path: the CSV. The number of rows is checked against the JSON beside it, where there is one.

    Raises:
        PipeOpsError: the file is absent, cut off or not such a file.
    """
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
    if details.exists() and (rows := _measured_rows(details)) != len(table):
        raise PipeOpsError(f"{path}: has {len(table)} rows where {rows} were measured; {remedy}")
    for column in _NUMBERS:
        broken = ~np.isfinite(table[column].to_numpy())
        if broken.any():
            line = int(broken.argmax()) + 2  # counted from 1, after the header
            raise PipeOpsError(f"{path}: line {line} has no number in column {column}; {remedy}")
    if not table["accuracy"].between(0, 1).all():
        raise PipeOpsError(f"{path}: column accuracy must hold fractions from 0 to 1; {remedy}")
    return table.fillna({"inference": ""})


def _measured_rows(details: Path) -> int:
    """How many rows were measured, as the JSON beside the CSV says."""
    try:
        return int(json.loads(details.read_text())["rows"])
    except (ValueError, KeyError, TypeError):
        raise PipeOpsError(f"{details}: damaged; delete it and run again") from None


def read_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Read files at ``.../{dataset}/{pipeline}/seed{seed}.csv`` into one table, with columns ``RUN`` first.

    Raises:
        PipeOpsError: there are no files, or one cannot be read.
    """
    tables = []
    for path in paths:
        dataset, pipeline, seed = path.parts[-3], path.parts[-2], int(path.stem.removeprefix("seed"))
        table = read_measurements(path)
        columns = [*RUN, *table.columns]
        tables.append(table.assign(dataset=dataset, pipeline=pipeline, seed=seed)[columns])
    if not tables:
        raise PipeOpsError(
            "no measurements to read: name what this shows in operator_sets, pipelines or cumulativeness"
        )
    return pd.concat(tables, ignore_index=True)


def read_curve(path: Path, *, inference: str = "") -> TradeoffCurve:
    """Read the curve of ``time_relative`` and ``accuracy`` from one file.

    Args:
        path: as for :func:`read_measurements`.
        inference: The inference letters whose rows are wanted, in the order L, Q; empty for neither.

    Raises:
        PipeOpsError: the file cannot be read, or was not measured with ``inference``.
    """
    table = read_measurements(path)
    rows = table[table["inference"] == inference]
    if rows.empty:
        found = ", ".join(letters or "(none)" for letters in table["inference"].unique())
        raise PipeOpsError(
            f"{path}: not measured with inference operators {inference or '(none)'}, only with {found}; "
            "delete it and run again"
        )
    return _curve(rows)


def curves(measurements: pd.DataFrame, *, inference: str = "") -> Runs:
    """Return the curve of every run: (dataset, pipeline, seed) to ``time_relative`` and ``accuracy``.

    Args:
        measurements: as :func:`read_runs` returns them.
        inference: The inference letters whose rows are wanted; runs without such rows are left out.
    """
    rows = measurements[measurements["inference"] == inference]
    groups: Any = rows.groupby(RUN, sort=False)
    return {(dataset, pipeline, seed): _curve(run) for (dataset, pipeline, seed), run in groups}


def _curve(rows: pd.DataFrame) -> TradeoffCurve:
    return TradeoffCurve(rows["time_relative"].to_numpy(), rows["accuracy"].to_numpy())
