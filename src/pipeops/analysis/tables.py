"""Tables: their numbers, and as Xin et al. 2022 print them, with what a reader must know about them."""

import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeops.analysis import commutativity as distances
from pipeops.analysis import cumulativeness as estimates
from pipeops.analysis import joint, savings, verdicts
from pipeops.analysis.commutativity import Comparison, compare_all, smallest_p_value
from pipeops.analysis.cumulativeness import NAIVE
from pipeops.analysis.joint import BUDGETS
from pipeops.analysis.paper import paper_table1, paper_table2, title
from pipeops.analysis.runs import curves
from pipeops.analysis.verdicts import sentences
from pipeops.files import replaced
from pipeops.provenance import provenance, write_json
from pipeops.text import html_page, markdown_table, mean_and_sd_as_text

_LEVEL = 0.05
_ONE_SEED = "one seed: no standard deviations."


class Table(NamedTuple):
    """One table."""

    numbers: pd.DataFrame
    markdown: str
    """As a person reads it."""


def save(table: Table, outputs: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
    """Write one table in all its forms.

    Args:
        table: what is written.
        outputs: paths of the ``csv``, the ``md``, its ``html`` page and the provenance (``json``).
        parameters: what the table depends on, for the provenance.
    """
    with replaced(Path(outputs["csv"])) as path:
        table.numbers.to_csv(path, index=False)
    for form, text in (("md", table.markdown), ("html", html_page(table.markdown))):
        with replaced(Path(outputs[form])) as path:
            path.write_text(text)
    write_json(Path(outputs["json"]), provenance(**parameters))


def table1(measurements: pd.DataFrame, operator_sets: Sequence[str], *, margin: float) -> Table:
    """Does the order matter? See ``commutativity.table1`` and ``verdicts.commutativity``."""
    runs = curves(measurements)
    comparisons = compare_all(runs, operator_sets)
    said = sentences(verdicts.commutativity(runs, operator_sets, margin=margin))
    return Table(distances.table1(comparisons), table1_markdown(comparisons, said))


def commutativity(measurements: pd.DataFrame, operator_sets: Sequence[str], *, margin: float) -> Table:
    """Does the order matter, with intervals? See ``verdicts.commutativity``."""
    numbers = verdicts.commutativity(curves(measurements), operator_sets, margin=margin)
    return Table(numbers, commutativity_markdown(numbers))


def table2(measurements: pd.DataFrame, pipelines: Sequence[str]) -> Table:
    """What do Q and L save? See ``savings.table2``."""
    values = savings.table2(measurements, pipelines)
    return Table(values, table2_markdown(values))


def cumulativeness(measurements: pd.DataFrame, operator_sets: Sequence[str]) -> Table:
    """Can a pipeline be predicted from its parts? See ``cumulativeness.cumulativeness``."""
    values = estimates.cumulativeness(measurements, operator_sets)
    return Table(values, cumulativeness_markdown(estimates.summary(values)))


def costeff(measurements: pd.DataFrame, pipelines: Sequence[str]) -> Table:
    """Joint training against operators one after the other; see ``joint.costeff``."""
    values = joint.costeff(measurements, pipelines)
    return Table(values, costeff_markdown(values))


def table1_markdown(comparisons: Mapping[tuple[str, str], Comparison], said: Sequence[str] = ()) -> str:
    """Print the comparisons by (dataset, operators) in the form of Table 1 of Xin et al. 2022, as text.

    Below it stand the p-values, each with the smallest that its number of seeds allows, notes on how to read
    them, and the figures of Xin et al. 2022 for their datasets.
    """
    parts = [
        "# Table 1: does the order of the operators matter?",
        *_verdicts_as_text(said),
        "Distance between two accuracy-time curves in percentage points of accuracy, mean ± SD. If the\n"
        "order matters, curves of two orderings (Diff.) are further apart than curves of one ordering that\n"
        "differ only in their seed (Same), and the p-value below is small.",
        _distances_as_text(distances.table1(comparisons)),
        "p-value of Diff. > Same (in brackets: the smallest that this number of seeds allows), by a\n"
        "permutation test per cell, not corrected for the number of cells:",
        _p_values_as_text(comparisons),
    ]
    if notes := _notes(comparisons):
        parts.append("\n".join(f"- {note}" for note in notes))
    paper = paper_table1()
    paper = paper[paper["dataset"].isin({dataset for dataset, _ in comparisons})]
    if not paper.empty:
        parts += ["Xin et al. 2022 (RoBERTa-base):", _distances_as_text(paper)]
    return "\n\n".join(parts) + "\n"


def _verdicts_as_text(said: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {one}" for one in said)] if said else []


def commutativity_markdown(table: pd.DataFrame) -> str:
    """Print what ``verdicts.commutativity`` returns: verdicts in words, and a row per pair of orderings."""
    header = ["Dataset", "Operators", "Orderings", "Difference", "90% interval", "Full depth", "Largest"]
    rows = [
        [
            title(row["dataset"]),
            "+".join(row["operators"]),
            f"{row['first']} - {row['second']}",
            f"{row['mean_difference']:+.2f}",
            f"{row['low']:+.2f} to {row['high']:+.2f}",
            f"{row['full_depth_difference']:+.2f}",
            f"{row['max_difference']:.2f}",
            f"{row['same_ordering']:.2f}",
            row["cell_verdict"],
        ]
        for row in _records(table)
    ]
    parts = [
        "# Does the order of the operators matter?",
        *_verdicts_as_text(sentences(table)),
        "Difference in accuracy of two orderings at the same time, mean over the times that both cover,\n"
        "paired by seed, in percentage points; at full depth; and the largest. Two seeds of one ordering\n"
        f"differ by what stands under Seeds. Margin: {table['margin'].iloc[0]:g} points. Two one-sided tests"
        "\nat 5% each, corrected for the number of cells (Holm).",
        markdown_table([*header, "Seeds", "Verdict"], rows),
    ]
    return "\n\n".join(parts) + "\n"


def table2_markdown(table: pd.DataFrame) -> str:
    """Print what ``savings.table2`` returns in the form of Table 2 of Xin et al. 2022, theirs below ours."""
    paper = paper_table2().set_index(["dataset", "pipeline"])
    rows, shown = [], None
    for row in _records(table):
        key = (row["dataset"], row["pipeline"])
        rows.append([title(key[0]) if key[0] != shown else "", key[1], *_table2_cells(row)])
        if key in paper.index:
            rows.append(["", f"{key[1]}, Xin et al. 2022", *_table2_cells(_as_means(paper.loc[key]))])
        shown = key[0]
    header = ["Dataset", "Pipeline", "Accuracy, %", "+Q", "Time, ms"]
    parts = [
        "# Table 2: what do Q and L save at the end of a pipeline?",
        "Accuracy without and with Q (relative change); time per example padded to `max_length`, and what\n"
        "of it is saved by Q (quantisation), by L (dynamic length) and by both. The last column is computed\n"
        "from the two: 1 - (1 - L)(1 - Q). L does not change the accuracy. Mean ± SD over the seeds.",
        markdown_table([*header, "+Q saves", "+L saves", "+LQ saves", "+LQ (est.)"], rows),
    ]
    if (table["n_seeds"] == 1).any():
        parts.append(f"- {_ONE_SEED}")
    return "\n\n".join(parts) + "\n"


def cumulativeness_markdown(summary: pd.DataFrame) -> str:
    """Print what ``cumulativeness.summary`` returns, a table per dataset."""
    parts = [
        "# Can a pipeline be predicted from its parts?",
        "Tradeoff curves estimated from O, D, P and E alone (equations 1-5 of Xin et al. 2022), against the\n"
        "measured ones. Accuracy errors: largest and mean difference at the same time, in percentage\n"
        "points. Time error: mean relative difference at the same threshold. Mean ± SD over the seeds. At\n"
        "full depth the estimate and the measurement stand side by side (means). Where P and Q meet, PQ is\n"
        "measured as one operator; the naive rows take Q's saving from O instead.",
    ]
    for dataset, rows in summary.groupby("dataset", sort=False):
        cells = [_estimate_cells(row) for row in _records(rows)]
        header = ["Operators", "Order", "Run with", "Largest error", "Mean error", "Time error"]
        full_depth = ["Accuracy est., %", "Accuracy, %", "Time / O est.", "Time / O"]
        parts += [f"## {title(str(dataset))}", markdown_table([*header, *full_depth], cells)]
    if summary.empty:
        parts.append("- no operator set holds E with D or P: nothing is estimated.")
    elif (summary["n_seeds"] == 1).any():
        parts.append(f"- {_ONE_SEED}")
    return "\n\n".join(parts) + "\n"


def costeff_markdown(table: pd.DataFrame) -> str:
    """Print what ``joint.costeff`` returns, a table per dataset."""
    times = [f"t = {budget.replace('_', '/')}" for budget in BUDGETS]
    header = ["Pipeline", "Run with", "Parameters", "FLOPs", "Full depth, %", *times, "Area, %"]
    parts = [
        "# COST-EFF: joint training against operators one after the other",
        "C is slenderised and trained with all its exits at once; the others apply D, P and E in turn.\n"
        "Parameters (all exits included) and FLOPs (full depth) are over O's. Then accuracies: at full\n"
        "depth, and in a time t of O's, padded, fp32 (- where no answer comes so soon). Area: the mean\n"
        "accuracy over all times up to O's, 0 where there is no answer. Mean ± SD over the seeds.",
    ]
    for dataset, rows in table.groupby("dataset", sort=False):
        cells = [_costeff_cells(row) for row in _records(rows)]
        parts += [f"## {title(str(dataset))}", markdown_table(header, cells)]
    if (table["n_seeds"] == 1).any():
        parts.append(f"- {_ONE_SEED}")
    return "\n\n".join(parts) + "\n"


def _costeff_cells(row: Mapping[str, Any]) -> list[str]:
    sizes = [f"{row[f'{measure}_mean']:.3f}" for measure in ("parameters_relative", "flops_relative")]
    accuracies = [
        mean_and_sd_as_text(row[f"{measure}_mean"], row[f"{measure}_sd"], digits=1)
        for measure in ("acc_full", *(f"acc_time_{budget}" for budget in BUDGETS), "area")
    ]
    return [row["pipeline"], row["inference"] or "-", *sizes, *accuracies]


def _table2_cells(row: Mapping[str, Any]) -> list[str]:
    def text(measure: str, digits: int) -> str:
        return mean_and_sd_as_text(row[f"{measure}_mean"], row[f"{measure}_sd"], digits=digits)

    savings = [text(f"saving_{letters}", 0) + "%" for letters in ("q", "l", "lq", "lq_est")]
    with_q = f"{text('acc_q', 1)} ({row['acc_change_q_mean']:+.1f}%)"
    return [
        text("acc_raw", 1),
        with_q,
        text("time_raw_ms", 2 if row["time_raw_ms_mean"] < 10 else 1),
        *savings,
    ]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def _as_means(row: pd.Series) -> dict[str, float]:
    """Return a row of Table 2 of Xin et al. 2022 in the columns of ours; it has no SDs."""
    change = 100 * (row["acc_q"] / row["acc_raw"] - 1)
    values = row.to_dict() | {"acc_change_q": change}
    return {f"{name}_mean": value for name, value in values.items()} | {
        f"{name}_sd": math.nan for name in values
    }


def _estimate_cells(row: Mapping[str, Any]) -> list[str]:
    def text(error: str, *, factor: float = 1, digits: int = 2) -> str:
        return mean_and_sd_as_text(factor * row[f"{error}_mean"], factor * row[f"{error}_sd"], digits=digits)

    naive = " (naive)" if row["estimate"] == NAIVE else ""
    accuracies = [f"{100 * row[name]:.1f}" for name in ("accuracy_estimated", "accuracy")]
    times = [f"{row[name]:.3f}" for name in ("time_relative_estimated", "time_relative")]
    return [
        "+".join(row["operators"]),
        row["pipeline"],
        f"{row['inference'] or '-'}{naive}",
        text("max_accuracy_error"),
        text("mean_accuracy_error"),
        text("mean_time_error", factor=100, digits=1) + "%",
        *accuracies,
        *times,
    ]


def _distances_as_text(table: pd.DataFrame) -> str:
    cells = {
        (row["dataset"], row["pairs"], row["operators"]): mean_and_sd_as_text(row["mean"], row["sd"])
        for row in table.to_dict("records")
    }
    rows = [
        [title(dataset) if pairs == "same" else "", order]
        + [cells.get((dataset, pairs, operators), "-") for operators in table["operators"].unique()]
        for dataset in table["dataset"].unique()
        for pairs, order in [("same", "Same"), ("different", "Diff."), ("one seed", "Diff., one seed")]
        if any((dataset, pairs, operators) in cells for operators in table["operators"].unique())
    ]
    return markdown_table(["Dataset", "Order", *map("+".join, table["operators"].unique())], rows)


def _p_values_as_text(comparisons: Mapping[tuple[str, str], Comparison]) -> str:
    sets = list(dict.fromkeys(operators for _, operators in comparisons))
    rows = [
        [title(dataset)] + [_p_value_as_text(comparisons.get((dataset, operators))) for operators in sets]
        for dataset in dict.fromkeys(dataset for dataset, _ in comparisons)
    ]
    return markdown_table(["Dataset", *map("+".join, sets)], rows)


def _notes(comparisons: Mapping[tuple[str, str], Comparison]) -> list[str]:
    """Say what a reader of the p-values must know, and of which cells."""
    cells: dict[str, list[str]] = {}
    for (dataset, operators), c in comparisons.items():
        name, seeds = "+".join(operators), len(c.seeds)
        if seeds == 1:
            note = "one seed gives no pairs of one ordering and no p-value; add seeds."
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


def _p_value_as_text(c: Comparison | None) -> str:
    if c is None or math.isnan(c.p_value):
        return "-"
    p, smallest = (f"{p:.3f}" if p >= 0.001 else f"{p:.1g}" for p in (c.p_value, c.smallest_p_value))
    return f"{p} ({smallest})"
