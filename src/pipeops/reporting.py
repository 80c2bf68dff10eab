"""Table 1 as text: as the paper prints it, with the p-values and what a reader must know about them."""

import math
from collections.abc import Mapping
from itertools import count

import pandas as pd

from pipeops.commutativity import Comparison, smallest_p_value, table1
from pipeops.paper import paper_table1, title

_LEVEL = 0.05


def table1_markdown(comparisons: Mapping[tuple[str, str], Comparison]) -> str:
    """Print the comparisons by (dataset, operators) as the paper prints its Table 1, readable in a terminal.

    Below it the p-values, each with the least that its number of seeds allows, what a reader must know about
    them, and for the paper's datasets the paper's own figures.
    """
    parts = [
        "# Table 1: does the order of the operators matter?",
        "Distance between two accuracy-time curves in percentage points of accuracy, mean ± SD. If the\n"
        "order matters, curves of different orders (Diff.) are further apart than curves of one order that\n"
        "differ only in their seed (Same), and the p-value below is small.",
        _distances_as_text(table1(comparisons)),
        "p-value of Diff. > Same (in brackets: the smallest that this number of seeds allows), by a\n"
        "permutation test per cell, not corrected for the number of cells:",
        _p_values_as_text(comparisons),
    ]
    if notes := _notes(comparisons):
        parts.append("\n".join(f"- {note}" for note in notes))
    paper = paper_table1()
    paper = paper[paper["dataset"].isin({dataset for dataset, _ in comparisons})]
    if not paper.empty:
        parts += ["The paper's own figures (RoBERTa-base):", _distances_as_text(paper)]
    return "\n\n".join(parts) + "\n"


def _distances_as_text(table: pd.DataFrame) -> str:
    cells = {
        (row["dataset"], row["pairs"], row["operators"]): _mean_and_sd_as_text(row["mean"], row["sd"])
        for row in table.to_dict("records")
    }
    rows = [
        [title(dataset) if pairs == "same" else "", order]
        + [cells.get((dataset, pairs, operators), "-") for operators in table["operators"].unique()]
        for dataset in table["dataset"].unique()
        for pairs, order in [("same", "Same"), ("different", "Diff.")]
    ]
    return _markdown(["Dataset", "Order", *map("+".join, table["operators"].unique())], rows)


def _p_values_as_text(comparisons: Mapping[tuple[str, str], Comparison]) -> str:
    sets = list(dict.fromkeys(operators for _, operators in comparisons))
    rows = [
        [title(dataset)] + [_p_value_as_text(comparisons.get((dataset, operators))) for operators in sets]
        for dataset in dict.fromkeys(dataset for dataset, _ in comparisons)
    ]
    return _markdown(["Dataset", *map("+".join, sets)], rows)


def _notes(comparisons: Mapping[tuple[str, str], Comparison]) -> list[str]:
    """Say what a reader of the p-values must know, and of which cells."""
    cells: dict[str, list[str]] = {}
    for (dataset, operators), c in comparisons.items():
        name, seeds = "+".join(operators), len(c.seeds)
        if seeds == 1:
            note = "one seed gives no pairs of the same order and no p-value; add seeds."
            cells.setdefault(note, []).append(name)
        elif c.smallest_p_value >= _LEVEL:
            enough = _seeds_needed(num_orderings=len(c.orderings))
            note = f"{seeds} seeds cannot give a p-value below {_LEVEL}, whatever the curves; {enough} can."
            cells.setdefault(note, []).append(name)
        if c.disjoint:
            note = f"{c.disjoint} pairs of curves share no time and are left out."
            cells.setdefault(note, []).append(f"{name} on {title(dataset)}")
    return [f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in cells.items()]


def _seeds_needed(*, num_orderings: int) -> int:
    return next(s for s in count(2) if smallest_p_value(num_orderings=num_orderings, num_seeds=s) < _LEVEL)


def _mean_and_sd_as_text(mean: float, sd: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.2f}" if math.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"


def _p_value_as_text(c: Comparison | None) -> str:
    if c is None or math.isnan(c.p_value):
        return "-"
    p, smallest = (f"{p:.3f}" if p >= 0.001 else f"{p:.1g}" for p in (c.p_value, c.smallest_p_value))
    return f"{p} ({smallest})"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up in a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)
