"""Rows of files of somebody's own, batch by batch: CSV, TSV, JSON lines or Parquet."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeops.data.sources import (
    FORMATS,
    MOST_NAMED,
    SEPARATORS,
    WrongEncoding,
    json_row,
    look,
    read_header,
    without_mark,
    wrong_encoding,
)
from pipeops.errors import PipeOpsError
from pipeops.reading import reading
from pipeops.text import listed, nearest, shortened

BATCH = 1000
"""Rows that are read at a time."""


def batches(
    path: Path, *, columns: Sequence[str] | None = None, encoding: str | None = None
) -> Iterator[pa.Table]:
    """Read a file from its beginning to its end.

    Args:
        path: the file; the end of its name says what it is.
        columns: those that are wanted, all of them there; None: every column.
        encoding: of a CSV or TSV, as its task names it; None: UTF-8, and there is no task to name another.

    Yields:
        At most ``BATCH`` rows. Every cell of a CSV or TSV is a text, whatever it looks like: ``NA`` and ``1``
        are texts too. Other formats' cells keep their type, and null stands for what is missing.

    Raises:
        PipeOpsError: the file is absent, of an unknown format, damaged, or of another encoding, in one line
            that holds no cell.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise PipeOpsError(f"{path}: its name ends in none of {', '.join(FORMATS)}; convert or rename it")
    if not path.is_file():
        raise PipeOpsError(f"{path}: not found; name a file of labelled texts")
    if suffix in SEPARATORS:
        found = _separated(path, encoding) if encoding else _separated_utf8(path)
    else:
        found = _parquet(path, columns) if suffix == ".parquet" else _json_lines(path, columns)
    return (table if columns is None else table.select(columns) for table in found)


def _separated(path: Path, encoding: str) -> Iterator[pa.Table]:
    read_header(path, encoding)
    separator, encoding = SEPARATORS[path.suffix.lower()], without_mark(encoding)
    try:
        with pd.read_csv(
            path, sep=separator, dtype=str, na_filter=False, encoding=encoding, chunksize=BATCH
        ) as chunks:
            for chunk in chunks:
                if not isinstance(chunk.index, pd.RangeIndex):
                    raise PipeOpsError(
                        f"{path}: its rows have more cells than the first line names; check its separators"
                    )
                yield pa.Table.from_pandas(chunk, preserve_index=False)
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, error) from None
    except ValueError as error:
        # Of the library's message nothing is kept but the number: the rest may hold what is in the row.
        place = re.search(r"\b(row|line) (\d+)", str(error))
        at = f", {place[1]} {place[2]}" if place else ""
        raise PipeOpsError(f"{path}{at}: cannot be read; check its quotes and separators") from None


def _separated_utf8(path: Path) -> Iterator[pa.Table]:
    with _utf8_only(path):
        yield from _separated(path, "utf-8")


@contextmanager
def _utf8_only(path: Path) -> Iterator[None]:
    try:
        yield
    except WrongEncoding:
        raise PipeOpsError(f"{path}: is not UTF-8; convert it, such as by iconv -f latin1 -t utf-8") from None


def _json_lines(path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    rows, first = [], 1
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            row = json_row(path, number, line)
            if row is not None:
                rows.append(row)
            if len(rows) == BATCH:
                yield _of_json(path, rows, columns, first=first)
                rows, first = [], first + BATCH
    if rows:
        yield _of_json(path, rows, columns, first=first)


def _of_json(path: Path, rows: Sequence[dict], columns: Sequence[str] | None, *, first: int) -> pa.Table:
    """Rows as a table; ``first`` is the number of the first of them."""
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    arrays = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            arrays.append(pa.array(values))
        except UnicodeEncodeError as error:  # half a character, as "\ud800"
            row = first + next((i for i, value in enumerate(values) if value == error.object), 0)
            raise PipeOpsError(f"{path}, row {row}: a text that is not UTF-8; correct it") from None
        except (pa.ArrowException, OverflowError):
            raise PipeOpsError(
                f"{path}: column '{shortened(name)}' holds values of several kinds in rows {first:,} to "
                f"{first + len(rows) - 1:,}; write them alike"
            ) from None
    return pa.table(arrays, names=list(names))


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH, columns=columns):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError):
        raise PipeOpsError(f"{path}: is no readable Parquet file; write it again") from None


def as_texts(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """A column as texts, those that are missing as empty ones.

    Raises:
        PipeOpsError: it holds something else; ``where`` stands before its name.
    """
    try:
        return pc.fill_null(column.cast(pa.large_string()), "")
    except pa.ArrowException:
        raise PipeOpsError(f"{where}: column '{name}' holds {column.type}, no texts; name another") from None


def listed_texts(column: pa.ChunkedArray, name: str, where: str) -> list[str]:
    """The same as a list; arguments and errors as of :func:`as_texts`."""
    try:
        return as_texts(column, name, where).to_pylist()
    except UnicodeDecodeError:
        raise PipeOpsError(f"{where}: column '{name}' is not UTF-8; convert the file") from None


def label_texts(column: pa.ChunkedArray, name: str, where: str) -> list[str]:
    """Labels as class names, with single spaces; empty where there is none.

    Raises:
        PipeOpsError: the column holds fractions, or lists; ``where`` stands before its name.
    """
    if pa.types.is_floating(column.type):
        values = column.to_pylist()
        if any(one is not None and one == one and not one.is_integer() for one in values):
            raise PipeOpsError(
                f"{where}: column '{name}' holds fractions; PipeOps studies classification, so name classes"
            )
        return ["" if one is None or one != one else str(int(one)) for one in values]
    if pa.types.is_nested(column.type):
        raise PipeOpsError(f"{where}: column '{name}' holds {column.type}, no labels; name another")
    return [" ".join(one.split()) for one in listed_texts(column, name, where)]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labelled inputs."""

    path: Path
    texts: list[tuple[str, ...]]
    """Per row: a text, or both texts of a pair."""
    labels: list[str]
    """Per row, with single spaces."""


def read_rows(path: Path, *, text: Sequence[str], label: str) -> Rows:
    """Read labelled inputs.

    Args:
        path: the file; the end of its name says what it is.
        text: its columns of texts, one, or two for a pair.
        label: its column of labels.

    Raises:
        PipeOpsError: see :func:`batches`; or a column or cell is missing, a text is no text, or there are no
            rows.
    """
    texts: list[tuple[str, ...]] = []
    labels: list[str] = []
    found = batches(path, columns=[*text, label])
    _check_columns(path, [*text, label])  # there is such a file, else it was refused
    for table in found:
        for name in (*text, label):
            cells = table[name]
            if cells.null_count:
                row = len(labels) + cells.is_null().to_pylist().index(True) + 1
                raise PipeOpsError(f"{path}, row {row}: has no '{name}'; add it, or drop the row")
            if name != label and not _holds_texts(cells.type):
                raise PipeOpsError(f"{path}, row {len(labels) + 1}: '{name}' is no text; write texts there")
        columns = [listed_texts(table[name], name, str(path)) for name in text]
        texts += zip(*columns, strict=True)
        labels += label_texts(table[label], label, str(path))
    if not texts:
        raise PipeOpsError(f"{path}: has no rows; add some")
    return Rows(path=path, texts=texts, labels=labels)


def _check_columns(path: Path, wanted: Sequence[str]) -> None:
    with _utf8_only(path):
        names = look(path).columns
    for column in wanted:
        if column not in names:
            raise PipeOpsError(
                f"{path}: has no column '{column}'{nearest(column, names)}; it has "
                f"{listed(names, most=MOST_NAMED)}"
            )


def _holds_texts(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


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
    """Read all columns; integers stay integers where some are missing.

    Raises:
        PipeOpsError: see :func:`batches`; or there are no rows.
    """
    with reading(path, wrong="cannot be read", again="convert it, or name another"):
        tables = [table.to_pandas(integer_object_nulls=True) for table in batches(path)]
    if not any(len(table) for table in tables):
        raise PipeOpsError(f"{path}: has no rows; add some")
    return pd.concat(tables, ignore_index=True)
