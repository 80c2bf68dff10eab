"""Texts and labels from a file of somebody's own: CSV, TSV, JSON lines or Parquet."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.errors import PipeOpsError
from pipeops.reading import reading
from pipeops.text import listed, nearest, shortened

MOST_NAMED = 10
"""Classes or columns that a message names at most."""


def _separated(separator: str) -> Callable[[Path], pd.DataFrame]:
    """Read every cell as it is written: ``NA`` and ``1`` are texts too."""
    return lambda path: pd.read_csv(
        path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
    )


def _json_lines(path: Path) -> pd.DataFrame:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    return pd.DataFrame(rows, dtype=object)


READERS: Mapping[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".jsonl": _json_lines,
    ".parquet": pd.read_parquet,
}
"""By the end of the file's name."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labelled inputs."""

    path: Path
    texts: list[tuple[str, ...]]
    """Per row: a text, or both texts of a pair."""
    labels: list[str]
    """Per row, as it is written in the file."""


def read_rows(path: Path, *, text: Sequence[str], label: str) -> Rows:
    """Read labelled inputs.

    Args:
        path: the file; the end of its name says what it is.
        text: its columns of texts, one, or two for a pair.
        label: its column of labels.

    Raises:
        PipeOpsError: the file is absent, empty or unreadable, or a column or cell is missing.
    """
    table = read_table(path)
    for column in (*text, label):
        if column not in table.columns:
            names = list(map(str, table.columns))
            raise PipeOpsError(
                f"{path}: has no column '{column}'{nearest(column, names)}; it has "
                f"{listed(names, most=MOST_NAMED)}"
            )
        cells = table[column]
        if len(missing := np.flatnonzero(cells.isna())):
            raise PipeOpsError(f"{path}, row {missing[0] + 1}: has no '{column}'; add it, or drop the row")
    for column in text:
        strange = (number for number, cell in enumerate(table[column], start=1) if not isinstance(cell, str))
        if (number := next(strange, None)) is not None:
            raise PipeOpsError(f"{path}, row {number}: '{column}' is no text; write texts there")
    if table.empty:
        raise PipeOpsError(f"{path}: has no rows; add some")
    return Rows(
        path=path,
        texts=list(zip(*(table[column] for column in text), strict=True)),
        labels=[str(cell) for cell in table[label]],
    )


def label_ids(rows: Rows, names: Sequence[str]) -> tuple[NDArray[np.int64], str]:
    """Match labels with classes: by name, or where they are no names but integers, by class id.

    Args:
        rows: with the labels.
        names: of the classes, in the order of their ids.

    Returns:
        Class ids, shape (rows,), and ``name`` or ``id``.

    Raises:
        PipeOpsError: a label is not one of the classes.
    """
    by_name = {name: number for number, name in enumerate(names)}
    by_id = {str(number): number for number in range(len(names))}
    for known, how in ((by_name, "name"), (by_id, "id")):
        if all(label in known for label in rows.labels):
            return np.array([known[label] for label in rows.labels], dtype=np.int64), how
    # Numbers throughout are meant as ids; else names are meant.
    meant = by_id if all(label.lstrip("-").isdecimal() for label in rows.labels) else by_name
    number, label = next((i, label) for i, label in enumerate(rows.labels, start=1) if label not in meant)
    raise PipeOpsError(
        f"{rows.path}, row {number}: the model has no label '{shortened(label)}'{nearest(label, names)}; "
        f"it has {listed(names, most=MOST_NAMED)}"
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read all columns; what is no text keeps its type, where the format has one.

    Raises:
        PipeOpsError: the file is absent, empty or unreadable.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise PipeOpsError(f"{path}: its name ends in none of {', '.join(READERS)}; convert or rename it")
    kind = path.suffix.lower()[1:]
    absent, wrong = "name a file of labelled texts", f"cannot be read as {kind}"
    with reading(path, absent=absent, wrong=wrong, again="convert it, or name another"):
        try:
            return read(path)
        except pd.errors.EmptyDataError:
            raise PipeOpsError(f"{path}: is empty; it needs a line of column names, and rows") from None
