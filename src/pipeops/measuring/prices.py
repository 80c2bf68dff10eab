"""Prices as files: what leaving at each exit costs, for every model of one shape."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops import hardware
from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.pipeline import INFERENCE
from pipeops.reading import reading

HALVES = ("first_half", "second_half")
"""Columns with ``time_relative`` as either half of the rounds alone has it: a price taken twice."""
COLUMNS = ["inference", "length", "exit_layer", "time_ms", "time_relative", "iqr", *HALVES, "rounds"]
"""Columns of the CSV: ``time_relative`` is over O's, padded to ``max_length``, ``iqr`` the range of its
middle half over the rounds, ``time_ms`` is ``time_relative`` times O's median milliseconds."""
_NUMBERS = COLUMNS[1:]


@dataclass(frozen=True)
class Costs:
    """Time of leaving at each exit over O's, of one inference variant."""

    lengths: NDArray[np.int64]
    """Input lengths in tokens that were measured, ascending, shape (lengths,)."""
    relative: NDArray[np.float64]
    """Time over O's, shape (lengths, exits)."""

    def at(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Time over O's of inputs of these lengths, shape (inputs, exits); linear between lengths."""
        return np.stack([np.interp(lengths, self.lengths, column) for column in self.relative.T], axis=1)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Costs of one shape on one machine, and where they come from."""

    path: Path
    """The file, for messages."""
    shape: ModelShape
    original: ModelShape
    """O's shape, which times are relative to."""
    max_length: int
    """Tokens that inputs are padded to without L, and O's always."""
    original_ms: float
    """O's median time per input, milliseconds."""
    costs: Mapping[str, Costs]
    """By the letters of the inference operators."""
    halves: tuple[Mapping[str, Costs], ...]
    """The same as either half of the rounds has it: how far a second pricing may be off."""
    record: Mapping[str, Any]
    """The JSON: provenance, settings, contention."""


def read_prices(path: Path, *, this_cpu: bool = True) -> Prices:
    """Read what :func:`pipeops.measuring.price.price` wrote.

    Args:
        path: the CSV; its JSON lies beside it.
        this_cpu: whether it must have been measured on a CPU such as this machine's.

    Raises:
        PipeOpsError: a file is absent, damaged or cut off, or of another CPU.
    """
    again, absent, details = "price again", f"price {path.stem} first", path.with_suffix(".json")
    with reading(details, absent=absent, again=again, sealed_with=path):
        record = json.loads(details.read_text(encoding="utf-8"))
        shape, original = (ModelShape.from_config(record[key]) for key in ("shape", "original_shape"))
        rows, of_cpu = int(record["rows"]), hardware.cpu_of(record)
        max_length, original_ms = int(record["max_length"]), float(record["original_ms"]["median"])
    if this_cpu and of_cpu != (here := hardware.this_cpu()):
        raise PipeOpsError(
            f"{path}: priced on {of_cpu}, this is {here}; price again here, or allow it: "
            "measuring: {allow_other_cpu: true}"
        )
    table = _read_table(path, rows, again)
    if missing := [letters for letters in INFERENCE if letters not in set(table["inference"])]:
        raise PipeOpsError(f"{path}: has no rows of {missing[0] or 'inference without L and Q'}; {again}")
    costs, *halves = _costs(table, shape, path)
    return Prices(
        path=path,
        shape=shape,
        original=original,
        max_length=max_length,
        original_ms=original_ms,
        costs=costs,
        halves=tuple(halves),
        record=record,
    )


def _read_table(path: Path, rows: int, again: str) -> pd.DataFrame:
    # Empty, ragged lines, text where a number belongs, bytes that are no text.
    with reading(path, absent=f"price {path.stem} first", wrong="not a price file", again=again, ours=True):
        complete = path.read_bytes().endswith(b"\n")
        table = pd.read_csv(path, dtype={"inference": "str"} | dict.fromkeys(_NUMBERS, "float64"))
    if missing := [column for column in COLUMNS if column not in table]:
        raise PipeOpsError(f"{path}: column {', '.join(missing)} is missing; {again}")
    if not complete or len(table) != rows:
        raise PipeOpsError(f"{path}: cut off, {len(table)} of {rows} rows; {again}")
    if not (table[_NUMBERS] > 0).drop(columns="iqr").to_numpy().all():
        raise PipeOpsError(f"{path}: every price must be a number above 0; {again}")
    return table.fillna({"inference": ""})


def _costs(table: pd.DataFrame, shape: ModelShape, path: Path) -> list[dict[str, Costs]]:
    """By inference letters: ``time_relative``, and the same of either half of the rounds."""
    found: list[dict[str, Costs]] = [{}, {}, {}]
    for letters, rows in table.sort_values(["length", "exit_layer"]).groupby("inference"):
        lengths = np.unique(rows["length"]).astype(np.int64)
        places = list(product(lengths, shape.exit_layers))
        if list(zip(rows["length"], rows["exit_layer"], strict=True)) != places:
            raise PipeOpsError(f"{path}: has not one row per length and exit; price again")
        for costs, column in zip(found, ("time_relative", *HALVES), strict=True):
            costs[str(letters)] = Costs(lengths, rows[column].to_numpy().reshape(len(lengths), -1))
    return found
