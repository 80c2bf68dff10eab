"""A glance at the files of one's own tasks: enough to refuse a study that cannot run, and to plan one.

Nothing heavy is imported, and little is read: the Snakefile looks each time that it is parsed. What needs
every row is said by `pipeops.data.own`, before anything is trained.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeops.data.tasks import Task
from pipeops.errors import PipeOpsError
from pipeops.files import expanded, state_of
from pipeops.reading import reading
from pipeops.settings import TaskSection
from pipeops.text import nearest, shortened

SEPARATORS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*SEPARATORS, ".jsonl", ".parquet")
"""Suffixes of files that can be read."""
GLANCE = 2**20
"""Bytes of a file that are looked at."""
CHARACTERS_PER_TOKEN = 4
MOST_NAMED = 10
"""Columns that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What the first rows of a file show."""

    columns: tuple[str, ...]
    rows: int
    """Of the whole file: counted where it is small, or a Parquet; else estimated from the first ones."""
    characters: float
    """Mean length of a row's texts, in characters."""


def own_task(name: str, section: TaskSection) -> Task:
    """Describe a task as far as a glance shows it: rows and length may be estimates, classes are not known.

    Raises:
        PipeOpsError: a file is missing or of an unknown format, its beginning is damaged, or a column is
            missing; or the rows are in a hub, where there is nothing to look at.
    """
    if section.hub:
        raise PipeOpsError(f"tasks.{name}: the size of '{section.hub}' is not known before it is fetched")
    glances = {
        split: [glance(path, section, f"tasks.{name}") for path in paths]
        for split, paths in section.files.items()
    }
    rows: dict[str, int] = {split: sum(one.rows for one in ones) for split, ones in glances.items()}
    if section.held_out is not None:
        held_out = round(section.held_out * rows["train"])
        rows = {"train": rows["train"] - held_out, "validation": held_out}
    characters = max(one.characters for one in glances["train"])
    return Task(
        name=name,
        columns=tuple(section.text),
        labels=(),
        rows=rows,
        mean_tokens=2 + round(characters / CHARACTERS_PER_TOKEN),
        own=True,
    )


def glance(path: str | Path, section: TaskSection, key: str) -> Glance:
    """Look at a file and check that its columns are there.

    Args:
        path: of the file.
        section: what is read of it.
        key: of the section, for messages.

    Raises:
        PipeOpsError: see :func:`own_task`.
    """
    file = expanded(path)
    if not file.is_file():
        raise PipeOpsError(f"{key}.files: '{path}' is not a file; name an existing one")
    if file.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise PipeOpsError(f"{key}.files: '{path}' is of no known format; it must end in one of {known}")
    with reading(file, wrong="cannot be read", again="write it again"):
        found = look(file, section.encoding, tuple(section.text))
    check_columns(found.columns, section, where=str(path), key=key)
    if not found.rows:
        raise PipeOpsError(f"{key}.files: '{path}' has no rows; add some")
    return found


def look(path: Path, encoding: str = "utf-8", texts: tuple[str, ...] = ()) -> Glance:
    """Look at the beginning of a file of a known format.

    Args:
        path: of the file.
        encoding: of a CSV or TSV.
        texts: columns whose length is wanted.

    Raises:
        PipeOpsError: its beginning is damaged or of another encoding.
    """
    return _look(path, state_of(path), encoding, texts)


def check_columns(found: Sequence[str], section: TaskSection, *, where: str, key: str) -> None:
    """Refuse rows that lack a column.

    Raises:
        PipeOpsError: the column, the nearest that is there, and which there are.
    """
    wanted: Mapping[str, Sequence[str]] = {
        "text": section.text,
        "label": [section.label],
        "group": [section.group] if section.group else [],
    }
    for name, columns in wanted.items():
        for column in columns:
            if column in found:
                continue
            # What stands for a header may be a row of texts.
            listed = ", ".join(shortened(name) for name in found[:MOST_NAMED])
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            meant = nearest(column, [name for name in found if name == shortened(name)])
            if spaced := next((name for name in found if name.strip() == column), None):
                meant = f", only '{spaced}', with spaces around it"
            raise PipeOpsError(
                f"{key}.{name}: '{where}' has no column '{column}'{meant}; it has {listed}{more}"
            )


def read_header(path: Path, encoding: str) -> tuple[str, ...]:
    """Column names of a CSV or TSV file.

    Raises:
        PipeOpsError: it is empty, damaged or of another encoding, or names a column twice.
    """
    with _opened(path, encoding) as file:
        header = next(_csv_rows(file, path), [])
    if not header:
        raise PipeOpsError(f"{path}: is empty; its first line must name the columns")
    for name in header:
        if header.count(name) > 1:
            raise PipeOpsError(f"{path}: has {header.count(name)} columns '{shortened(name)}'; rename one")
    return tuple(header)


def json_row(path: Path, number: int, line: bytes) -> dict[str, Any] | None:
    """The object on a line of a JSONL file; None where the line is blank.

    Raises:
        PipeOpsError: it is not UTF-8, or no object.
    """
    if not line.strip():
        return None
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise PipeOpsError(f"{path}, line {number}: is not UTF-8; convert the file") from None
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise PipeOpsError(f"{path}, line {number}: is no JSON object; write one object a line")
    return row


def without_mark(encoding: str) -> str:
    """The encoding under which a byte order mark is no text."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


class WrongEncoding(PipeOpsError):
    """A file is of another encoding; the remedy is that of a task."""


def wrong_encoding(path: Path, error: UnicodeDecodeError) -> WrongEncoding:
    """What to say of a file that is of another encoding."""
    return WrongEncoding(
        f"{path}: is not {error.encoding.upper()} ({error.reason}); convert it, or name its encoding, such "
        "as encoding: latin-1"
    )


@cache
def _look(path: Path, state: tuple[int, ...], encoding: str, texts: tuple[str, ...]) -> Glance:
    """Once per process and state of the file."""
    if path.suffix.lower() == ".parquet":
        return _look_at_parquet(path, texts)
    columns, rows, consumed = (
        _first_lines(path) if path.suffix.lower() == ".jsonl" else _first_records(path, encoding)
    )
    mean = sum(sum(len(str(row.get(name) or "")) for name in texts) for row in rows) / max(1, len(rows))
    size, *_ = state
    count = len(rows) if consumed >= size else round(len(rows) * size / max(1, consumed))
    return Glance(columns=columns, rows=count, characters=mean)


def _look_at_parquet(path: Path, texts: tuple[str, ...]) -> Glance:
    import pyarrow.parquet as pq

    with reading(path, wrong="is no readable Parquet file", again="write it again"):
        file = pq.ParquetFile(path)
        columns = tuple(file.schema_arrow.names)
        wanted = [name for name in texts if name in columns]
        first = next(file.iter_batches(batch_size=100, columns=wanted), None)
    rows = first.to_pylist() if first is not None else []
    mean = sum(sum(len(str(text or "")) for text in row.values()) for row in rows) / max(1, len(rows))
    return Glance(columns=columns, rows=file.metadata.num_rows, characters=mean)


def _first_lines(path: Path) -> tuple[tuple[str, ...], list[dict[str, Any]], int]:
    """Columns, rows and bytes of the beginning of a JSONL file."""
    with path.open("rb") as file:
        start = file.read(GLANCE)
        start += file.readline()
    lines = enumerate(start.split(b"\n"), start=1)
    rows = [row for number, line in lines if (row := json_row(path, number, line)) is not None]
    if not rows:
        raise PipeOpsError(f"{path}: is empty; write one JSON object a line")
    return tuple(dict.fromkeys(name for row in rows for name in row)), rows, len(start)


def _first_records(path: Path, encoding: str) -> tuple[tuple[str, ...], list[dict[str, Any]], int]:
    """Columns, rows and bytes of the beginning of a CSV or TSV file."""
    header = read_header(path, encoding)
    with path.open("rb") as file:
        start = file.read(GLANCE)
    whole = len(start) < GLANCE
    try:
        text = start.decode(without_mark(encoding), errors="strict" if whole else "ignore")
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, error) from None
    records = list(_csv_rows(io.StringIO(text, newline=""), path))[1:]
    if not whole:
        records = records[:-1]  # cut in its middle
    rows = [dict(zip(header, record, strict=False)) for record in records if record]
    return header, rows, len(start)


def _csv_rows(file: Any, path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(file, delimiter=SEPARATORS[path.suffix.lower()])
    try:
        yield from reader
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, error) from None
    except csv.Error as error:
        raise PipeOpsError(f"{path}, line {reader.line_num}: is no CSV ({error})") from None


def _opened(path: Path, encoding: str) -> Any:
    return path.open(encoding=without_mark(encoding), newline="")
