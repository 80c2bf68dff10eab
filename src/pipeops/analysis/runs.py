"""Measurements, read back and checked: the one input of every table and figure."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeops.analysis.curves import TradeoffCurve
from pipeops.errors import PipeOpsError
from pipeops.measuring.classes import METRICS
from pipeops.measuring.records import COLUMNS, EXIT_COLUMNS, exits_path
from pipeops.reading import reading

RUN = ["dataset", "pipeline", "seed"]
"""Columns that name a run: the trained pipeline on a dataset with a seed."""
_TEXTS = ["dataset", "pipeline", "inference", "metric", "kernels"]

Runs = dict[tuple[str, str, int], TradeoffCurve]


def read_measurements(path: Path) -> pd.DataFrame:
    """Read one file: a row per (inference letters, threshold), the threshold NaN for a single exit.

    Args:
        path: the CSV. The number of rows is checked against the JSON beside it, where there is one.

    Raises:
        PipeOpsError: the file is absent, cut off or not such a file.
    """
    return _whole(path, COLUMNS, remedy=_measure_again("it"))


def _measure_again(what: object) -> str:
    """Tables that are finished do not need the files of single seeds any more; pooling does."""
    return f"delete {what} and run again with --forcerun curves"


def _whole(path: Path, columns: list[str], *, remedy: str) -> pd.DataFrame:
    """Read rows per threshold; their number is checked against the JSON beside them, where there is one."""
    table = _read(path, columns, optional="threshold", remedy=remedy, sealed_with=path)
    if path.with_suffix(".json").exists():
        measured = sum(record["rows"] for record in read_details(path))
        if measured != len(table):
            raise PipeOpsError(f"{path}: has {len(table)} rows where {measured} were measured; {remedy}")
    return table


def read_details(path: Path) -> list[dict[str, Any]]:
    """Read the JSON beside a CSV: provenance and costs of the seed, or of each seed.

    Raises:
        PipeOpsError: it is absent or damaged.
    """
    details, remedy = path.with_suffix(".json"), _measure_again(path)
    with reading(details, absent=remedy, again=remedy, sealed_with=path):
        content = json.loads(details.read_text(encoding="utf-8"))
        records = content if isinstance(content, list) else [content]
        if not all(isinstance(record["rows"], int) for record in records):
            raise ValueError("rows: no number")
        return records


def _read(
    path: Path, columns: list[str], *, remedy: str, sealed_with: Path, optional: str = ""
) -> pd.DataFrame:
    """Read a table that must have these columns, with a number wherever one belongs but in ``optional``."""
    texts = dict.fromkeys(_TEXTS, "str")
    numbers = [column for column in columns if column not in (*texts, optional)]
    # Ragged lines, text where a number belongs, bytes that are no text.
    absent = f"measure it first: {remedy}"
    with reading(
        path, absent=absent, wrong="not a file of measurements", again=remedy, sealed_with=sealed_with
    ):
        complete = path.read_bytes()[-1:] == b"\n"
        try:
            table = pd.read_csv(path, dtype=texts | dict.fromkeys(numbers, "float64"))
        except pd.errors.EmptyDataError:
            raise PipeOpsError(f"{path}: empty; {remedy}") from None
    if missing := [column for column in columns if column not in table]:
        raise PipeOpsError(f"{path}: column {', '.join(missing)} is missing; {remedy}")
    if not complete:
        raise PipeOpsError(f"{path}: cut off in the middle of its last line; {remedy}")
    if table.empty:
        raise PipeOpsError(f"{path}: has no rows; {remedy}")
    for column in numbers:
        broken = ~np.isfinite(table[column].to_numpy())
        if broken.any():
            line = int(broken.argmax()) + 2  # counted from 1, after the header
            raise PipeOpsError(f"{path}: line {line} has no number in column {column}; {remedy}")
    if unknown := sorted(set(table["metric"].fillna("nothing")) - set(METRICS)):
        raise PipeOpsError(
            f"{path}: column metric has {unknown[0]}, and known are {', '.join(METRICS)}; {remedy}"
        )
    least = table["metric"].map({name: metric.least for name, metric in METRICS.items()})
    if not table["accuracy"].between(least, 1).all():
        raise PipeOpsError(
            f"{path}: column accuracy must hold fractions from 0 to 1, of MCC from -1; {remedy}"
        )
    return table.fillna({"inference": ""})


def pool(paths: Iterable[Path]) -> pd.DataFrame:
    """Read files at ``.../{dataset}/{pipeline}/seed{seed}.csv`` into one table, with columns ``RUN`` first.

    Raises:
        PipeOpsError: one cannot be read.
    """
    return _pooled(paths, read_measurements)


def pool_exits(paths: Iterable[Path]) -> pd.DataFrame:
    """Read what was measured per exit: as :func:`pool`, of the same paths, with ``EXIT_COLUMNS``."""
    return _pooled(paths, lambda path: _read_exits(path, EXIT_COLUMNS, remedy=_measure_again(path)))


def _pooled(paths: Iterable[Path], read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    tables = []
    for path in paths:
        table = read(path)
        dataset, pipeline, seed = path.parts[-3], path.parts[-2], int(path.stem.removeprefix("seed"))
        columns = [*RUN, *table.columns]
        tables.append(table.assign(dataset=dataset, pipeline=pipeline, seed=seed)[columns])
    return pd.concat(tables, ignore_index=True)


def read_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Read what :func:`pool` returned and was written as CSV, of any number of pipelines, into one table.

    Raises:
        PipeOpsError: there are no files, or one cannot be read.
    """
    columns = [*RUN, *COLUMNS]
    return _of_runs(_whole(path, columns, remedy="delete it and run again") for path in paths)


def read_exits(paths: Iterable[Path]) -> pd.DataFrame:
    """Read what was measured per exit: as :func:`read_runs`, of the same paths, with ``EXIT_COLUMNS``."""
    columns = [*RUN, *EXIT_COLUMNS]
    return _of_runs(_read_exits(path, columns, remedy=f"delete {path} and run again") for path in paths)


def _read_exits(path: Path, columns: list[str], *, remedy: str) -> pd.DataFrame:
    return _read(exits_path(path), columns, remedy=remedy, sealed_with=path)


def _of_runs(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    tables = list(tables)
    if not tables:
        raise PipeOpsError(
            "no measurements to read: name what this shows in operator_sets, pipelines or cumulativeness"
        )
    return pd.concat(tables, ignore_index=True).astype({"seed": int})


def curves(measurements: pd.DataFrame, *, inference: str = "") -> Runs:
    """Return the curve of every run: (dataset, pipeline, seed) to ``time_relative`` and ``accuracy``.

    Args:
        measurements: as :func:`read_runs` returns them.
        inference: The inference letters whose rows are wanted; runs without such rows are left out.
    """
    rows = measurements[measurements["inference"] == inference]
    groups: Any = rows.groupby(RUN, sort=False)
    return {(dataset, pipeline, seed): curve_of(run) for (dataset, pipeline, seed), run in groups}


def curve_of(rows: pd.DataFrame) -> TradeoffCurve:
    """Return the curve of one run's rows, all with the same inference letters."""
    return TradeoffCurve(rows["time_relative"].to_numpy(), rows["accuracy"].to_numpy())


def runs_of(
    measurements: pd.DataFrame, pipelines: Sequence[str], *, table: str
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield the names of each dataset, its metric and a pipeline, and the rows of all its seeds.

    Args:
        measurements: as :func:`read_runs` returns them.
        pipelines: which trained pipelines, in this order for each dataset.
        table: what they are for, named in errors.

    Raises:
        PipeOpsError: a pipeline was not measured.
    """
    for dataset, of_dataset in measurements.groupby("dataset", sort=False):
        for pipeline in pipelines:
            runs = of_dataset[of_dataset["pipeline"] == pipeline]
            if runs.empty:
                raise PipeOpsError(
                    f"{table}: {pipeline} was not measured on {dataset}; add it to pipelines: [{pipeline}]"
                )
            names = {"dataset": str(dataset), "metric": str(runs["metric"].iloc[0]), "pipeline": pipeline}
            yield names, runs


def mean_and_sd(per_seed: Sequence[dict[str, float]], measures: Sequence[str]) -> dict[str, float]:
    """Return ``n_seeds``, and each measure's ``_mean`` and sample ``_sd`` over the seeds.

    The SD is NaN with one seed, and both are where a seed has no value.
    """
    table = pd.DataFrame(per_seed)
    summary: dict[str, float] = {"n_seeds": len(per_seed)}
    for measure in measures:
        values = table[measure]
        summary |= {
            f"{measure}_mean": values.mean(skipna=False),
            f"{measure}_sd": values.std(ddof=1, skipna=False),
        }
    return summary
