"""The times of all pipelines of one encoder on this CPU, without training any."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeops.errors import PipeOpsError
from pipeops.measuring.price import measure_prices
from pipeops.models.shape import ModelShape
from pipeops.pipeline import INFERENCE, Pipeline, trained_pipelines
from pipeops.progress import Progress, progress
from pipeops.reading import reading
from pipeops.settings import PricesSection
from pipeops.text import as_given, markdown_table

COLUMNS = ["operators", "pipelines", "inference", "exit_layer", "time_ms", "time_relative"]
"""Columns of the list; times are means over the lengths, ``time_relative`` is over O's, padded."""


def read_lengths(path: Path) -> NDArray[np.int64]:
    """Read lengths of inputs in tokens: of a tokenised split (Parquet), or a text with one number a line.

    Raises:
        PipeOpsError: the file is absent or empty, or holds anything else.
    """
    remedy = "give a tokenised split (.parquet) or a text with one length a line"
    with reading(path, absent=remedy, wrong="not readable", again=remedy):
        if path.suffix == ".parquet":
            ids = pq.ParquetFile(path).read(columns=["input_ids"])["input_ids"]
            found = [len(tokens) for tokens in ids.to_pylist()]
        else:
            found = []
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if line.strip():
                    found.append(_length(line.strip(), f"{path}: line {number}", remedy))
    if not found:
        raise PipeOpsError(f"{path}: holds no lengths; {remedy}")
    return np.array(found)


def operator_sets(pipelines: Iterable[str]) -> dict[str, list[str]]:
    """Group trained pipelines by their operators, whose order changes no price: ``DE`` to DE and ED."""
    sets: dict[str, list[str]] = {}
    for pipeline in pipelines:
        sets.setdefault(Pipeline(pipeline).operators, []).append(pipeline)
    return sets


def price_list(
    shape_of: Callable[[Pipeline], ModelShape],
    *,
    lengths: NDArray[np.int64],
    max_length: int,
    settings: PricesSection,
    pipelines: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Price every pipeline on this CPU, on random weights.

    Args:
        shape_of: the shape of a trained pipeline's model.
        lengths: of the inputs in tokens.
        max_length: what they are padded to without L.
        settings: threads, rounds, and what counts as a quiet machine.
        pipelines: trained ones; None: all that are valid.

    Returns:
        A row per set of operators, inference variant and exit, with ``COLUMNS``.

    Raises:
        PipeOpsError: as :func:`pipeops.measuring.price.price`.
    """
    original, tables = shape_of(Pipeline("O")), []
    sets = operator_sets(pipelines or trained_pipelines())
    with progress("price", len(sets)) as shown:
        for number, (operators, orders) in enumerate(sets.items()):
            shown.what = f"price {operators}, {number + 1} of {len(sets)}"
            table, _ = measure_prices(
                shape_of(Pipeline(orders[0])),
                original,
                lengths=lengths,
                max_length=max_length,
                settings=settings,
                operators=operators,
                reached=partial(_reach, shown, number),
            )
            by_exit = mean_over_lengths(table, lengths, max_length)
            tables.append(by_exit.assign(operators=operators, pipelines=", ".join(orders))[COLUMNS])
    return pd.concat(tables, ignore_index=True)


def _reach(shown: Progress, sets: int, part: float) -> None:
    """So many sets are done, and this part of one more."""
    shown.reach(sets + part)


def mean_over_lengths(table: pd.DataFrame, lengths: NDArray[np.int64], max_length: int) -> pd.DataFrame:
    """Mean price of leaving at each exit, linear between the lengths that were measured.

    Returns:
        A row per inference variant and exit: ``inference, exit_layer, time_ms, time_relative``.
    """
    rows = []
    for inference in INFERENCE:
        run_as = lengths if "L" in inference else np.array([max_length])
        for layer, prices in table[table["inference"] == inference].groupby("exit_layer"):
            means = {
                column: np.interp(run_as, prices["length"], prices[column]).mean()
                for column in ("time_ms", "time_relative")
            }
            rows.append({"inference": inference, "exit_layer": layer} | means)
    return pd.DataFrame(rows)


def price_list_text(prices: pd.DataFrame) -> str:
    """The list as a Markdown table: milliseconds an input, from the first exit to the last."""
    header = [
        "pipelines",
        "exits",
        *(f"ms, {letters or 'as it is'}" for letters in INFERENCE),
        "O's time / its",
    ]
    rows = []
    for _, of_set in prices.groupby("operators", sort=False):
        cells, last = [], 0.0
        for letters in INFERENCE:
            of_variant = of_set[of_set["inference"] == letters]
            first, last_ms = of_variant["time_ms"].iloc[[0, -1]]
            cells.append(f"{last_ms:.3g}" if len(of_variant) == 1 else f"{first:.3g} - {last_ms:.3g}")
            last = float(of_variant["time_relative"].iloc[-1])
        exits = of_set["exit_layer"].nunique()
        rows.append([of_set["pipelines"].iloc[0], str(exits), *cells, f"{1 / last:.1f}"])
    return markdown_table(header, rows)


def _length(text: str, where: str, remedy: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise PipeOpsError(f"{where}: {as_given(text)} is no length; {remedy}")
    return int(text)
