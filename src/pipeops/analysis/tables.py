"""Tables: their numbers, and as Xin et al. 2022 print them, with what a reader must know about them."""

import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeops.analysis import commutativity as distances
from pipeops.analysis import cumulativeness as estimates
from pipeops.analysis import effects as over_tasks
from pipeops.analysis import joint, regret, savings, verdicts
from pipeops.analysis.commutativity import Comparison, compare_all, smallest_p_value
from pipeops.analysis.cumulativeness import ANOTHER_SEED, COMPOUND, NAIVE, PRICED, UNCHANGED
from pipeops.analysis.joint import BUDGETS
from pipeops.analysis.metrics import Metrics, capitalised, heading, metrics_of, quality
from pipeops.analysis.paper import paper_table1, paper_table2
from pipeops.analysis.replays import Replays
from pipeops.analysis.runs import curves
from pipeops.analysis.verdicts import sentence
from pipeops.integrity import sealed
from pipeops.pipeline import Pipeline
from pipeops.provenance import json_text, provenance
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
    with sealed(*(Path(outputs[form]) for form in ("csv", "md", "html", "json"))) as (csv, md, html, json):
        table.numbers.to_csv(csv, index=False)
        md.write_text(table.markdown)
        html.write_text(html_page(table.markdown))
        json.write_text(json_text(provenance(**parameters)))


Steps = Mapping[str, Mapping[str, int]]
"""By dataset and ordering: steps that the model which the ordering ends in was trained; without the datasets
of which they are not known."""


def table1(measurements: pd.DataFrame, operator_sets: Sequence[str], *, margin: float, steps: Steps) -> Table:
    """Does the order matter? See ``commutativity.table1`` and ``verdicts.commutativity``."""
    runs, metrics = curves(measurements), metrics_of(measurements)
    comparisons = compare_all(runs, operator_sets)
    said = _said(verdicts.commutativity(runs, operator_sets, margin=margin, metrics=metrics), steps)
    numbers = distances.table1(comparisons)
    numbers.insert(1, "metric", numbers["dataset"].map(metrics))
    return Table(numbers, table1_markdown(comparisons, said, metrics=metrics))


def commutativity(
    measurements: pd.DataFrame,
    operator_sets: Sequence[str],
    *,
    margin: float,
    steps: Steps,
    replays: Replays,
) -> Table:
    """Does the order matter, with intervals? See ``verdicts.commutativity``."""
    numbers = verdicts.commutativity(
        curves(measurements),
        operator_sets,
        margin=margin,
        metrics=metrics_of(measurements),
        replays=replays,
    )
    return Table(numbers, commutativity_markdown(numbers, steps))


def effects(measurements: pd.DataFrame, operator_sets: Sequence[str], *, margin: float) -> Table:
    """Does the order matter over all tasks? See ``effects.effects``."""
    values = over_tasks.effects(curves(measurements), operator_sets, margin=margin)
    what = quality(metrics_of(measurements).values(), several="each task's metric")
    return Table(values, effects_markdown(values, what))


def table2(measurements: pd.DataFrame, pipelines: Sequence[str]) -> Table:
    """What do Q and L save? See ``savings.table2``."""
    values = savings.table2(measurements, pipelines)
    return Table(values, table2_markdown(values))


def cumulativeness(measurements: pd.DataFrame, operator_sets: Sequence[str], *, replays: Replays) -> Table:
    """Can a pipeline be predicted from its parts? See ``cumulativeness.cumulativeness``."""
    values = estimates.cumulativeness(measurements, operator_sets, replays)
    chances = {dataset: replays.chance(dataset) for dataset in values["dataset"].unique()}
    return Table(values, cumulativeness_markdown(values, chances))


def costeff(measurements: pd.DataFrame, pipelines: Sequence[str]) -> Table:
    """Joint training against operators one after the other; see ``joint.costeff``."""
    values = joint.costeff(measurements, pipelines)
    return Table(values, costeff_markdown(values))


def recommendation(_: pd.DataFrame, __: Sequence[str], *, replays: Replays) -> Table:
    """How good is what would be recommended from single operators? See ``regret.regret``."""
    values = regret.regret(replays)
    return Table(values, recommendation_markdown(values))


def table1_markdown(
    comparisons: Mapping[tuple[str, str], Comparison],
    said: Sequence[str] = (),
    *,
    metrics: Metrics | None = None,
) -> str:
    """Print the comparisons by (dataset, operators) in the form of Table 1 of Xin et al. 2022, as text.

    Below it stand the p-values, each with the smallest that its number of seeds allows, notes on how to read
    them, and the figures of Xin et al. 2022 for their datasets.

    Args:
        comparisons: by dataset and operators.
        said: verdicts in words.
        metrics: by dataset; None: all are of accuracy.
    """
    datasets = dict.fromkeys(dataset for dataset, _ in comparisons)
    metrics = dict.fromkeys(datasets, "accuracy") | dict(metrics or {})
    what = quality(metrics[dataset] for dataset in datasets)
    parts = [
        "# Table 1: does the order of the operators matter?",
        *_verdicts_as_text(said),
        f"Distance between two {what}-time curves in percentage points of {what}, mean ± SD. If the\n"
        "order matters, curves of two orderings (Diff.) are further apart than curves of one ordering that\n"
        "differ only in their seed (Same), and the p-value below is small.",
        _distances_as_text(distances.table1(comparisons), metrics),
        "p-value of Diff. > Same (in brackets: the smallest that this number of seeds allows), by a\n"
        "permutation test per cell, not corrected for the number of cells:",
        _p_values_as_text(comparisons, metrics),
    ]
    if notes := _notes(comparisons, metrics):
        parts.append("\n".join(f"- {note}" for note in notes))
    paper = paper_table1()
    paper = paper[paper["dataset"].isin(datasets)]
    if not paper.empty:
        parts += ["Xin et al. 2022 (RoBERTa-base):", _distances_as_text(paper, metrics)]
    return "\n\n".join(parts) + "\n"


def _said(table: pd.DataFrame, steps: Steps) -> list[str]:
    """The verdict of every cell, each with the number of steps that its orderings' models were trained."""
    cells: Any = table.groupby(["dataset", "operators"], sort=False)
    said = []
    for (dataset, _), cell in cells:
        orderings = dict.fromkeys([*cell["first"], *cell["second"]])
        said.append(sentence(cell))
        if dataset in steps:
            trained = ", ".join(f"{ordering} {steps[dataset][ordering]:,}" for ordering in orderings)
            said[-1] += f". Steps trained: {trained}"
    return said


def _verdicts_as_text(said: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {one}" for one in said)] if said else []


def commutativity_markdown(table: pd.DataFrame, steps: Steps) -> str:
    """Print what ``verdicts.commutativity`` returns: verdicts in words, and a row per pair of orderings."""
    header = ["Dataset", "Operators", "Orderings", "Difference", "90% interval", "Bootstrap", "Full depth"]
    what = quality(table["metric"], several="the metric")
    rows = [
        [
            heading(row["dataset"], row["metric"]),
            "+".join(row["operators"]),
            f"{row['first']} - {row['second']}",
            _or_dash(row["mean_difference"], "+.2f"),
            _interval(row["low"], row["high"]),
            _interval(row["bootstrap_low"], row["bootstrap_high"]),
            _or_dash(row["full_depth_difference"], "+.2f"),
            _or_dash(row["max_difference"], ".2f"),
            row["cell_verdict"],
        ]
        for row in _records(table)
    ]
    yardsticks = [
        [
            heading(row["dataset"], row["metric"]),
            "+".join(row["operators"]),
            _or_dash(row["same_ordering"], ".2f"),
            _or_dash(row["priced_twice"], ".3f"),
            _or_dash(row["sampling_error"], ".2f"),
            _or_dash(row["paired_sampling_error"], ".2f"),
        ]
        for row in _records(table.groupby(["dataset", "operators"], sort=False).max().reset_index())
    ]
    parts = [
        "# Does the order of the operators matter?",
        *_verdicts_as_text(_said(table, steps)),
        "Steps trained: those of the model that an ordering ends in, from its pretrained weights. Where\n"
        "they differ, a difference may be one of training length.",
        f"Difference in {what} of two orderings at the same time, mean over the times that both cover,\n"
        "paired by seed, in percentage points; its 90% interval over seeds, which decides, and over seeds\n"
        "and validation examples (bootstrap); the difference at full depth; and the largest. Margin:\n"
        f"{table['margin'].iloc[0]:g} points. Two one-sided tests at 5% each, corrected for the number of\n"
        "cells (Holm).",
        markdown_table([*header, "Largest", "Verdict"], rows),
        "Yardsticks in the same unit, the largest of each set: two seeds of one ordering; the same models\n"
        "priced twice; the standard error that the validation split gives a difference at full depth if\n"
        "models answer independently, and that of the mean difference if both answer the same examples."
        + ("" if table["sampling_error"].notna().all() else "\nThe former is known of accuracy only."),
        markdown_table(
            ["Dataset", "Operators", "Another seed", "Priced twice", "Sampling", "Sampling, paired"],
            yardsticks,
        ),
    ]
    return "\n\n".join(parts) + "\n"


def effects_markdown(table: pd.DataFrame, what: str) -> str:
    """Print what ``effects.effects`` returns, a row per pair of orderings; ``what`` names the metric."""
    header = ["Operators", "Orderings", "Tasks", "Runs", "Effect", "90% interval", "SD, tasks", "SD, seeds"]
    rows = [
        [
            "+".join(row["operators"]),
            f"{row['first']} - {row['second']}",
            str(row["n_tasks"]),
            str(row["n_runs"]),
            _or_dash(row["effect"], "+.2f"),
            _interval(row["low"], row["high"]),
            _or_dash(row["sd_tasks"], ".2f"),
            _or_dash(row["sd_seeds"], ".2f"),
            row["verdict"],
        ]
        for row in _records(table)
    ]
    parts = [
        "# Does the order matter over all tasks?",
        f"Difference in {what} of two orderings at the same time, mean over the times that both cover, in\n"
        "percentage points. A mixed-effects model: the order is fixed, tasks and seeds are random. The\n"
        "interval is for the mean over more tasks like these, so few tasks make it wide. Margin:\n"
        f"{table['margin'].iloc[0]:g} points, tested pair by pair, not corrected for their number.",
        markdown_table([*header, "Verdict"], rows),
    ]
    return "\n\n".join(parts) + "\n"


def table2_markdown(table: pd.DataFrame) -> str:
    """Print what ``savings.table2`` returns in the form of Table 2 of Xin et al. 2022, theirs below ours."""
    paper = paper_table2().set_index(["dataset", "pipeline"])
    rows, shown = [], None
    for row in _records(table):
        key = (row["dataset"], row["pipeline"])
        named = heading(row["dataset"], row["metric"]) if key[0] != shown else ""
        rows.append([named, key[1], *_table2_cells(row)])
        if key in paper.index:
            rows.append(["", f"{key[1]}, Xin et al. 2022", *_table2_cells(_as_means(paper.loc[key]))])
        shown = key[0]
    what = capitalised(quality(table["metric"]))
    header = ["Dataset", "Pipeline", f"{what}, %", "+Q", "Time, ms"]
    parts = [
        "# Table 2: what do Q and L save at the end of a pipeline?",
        f"{what} without and with Q (relative change); time per example padded to `max_length`, and what\n"
        "of it is saved by Q (quantisation), by L (dynamic length) and by both. The last column is computed\n"
        "from the two: 1 - (1 - L)(1 - Q). L does not change the answers. Mean ± SD over the seeds.",
        markdown_table([*header, "+Q saves", "+L saves", "+LQ saves", "+LQ (est.)"], rows),
    ]
    if (table["n_seeds"] == 1).any():
        parts.append(f"- {_ONE_SEED}")
    return "\n\n".join(parts) + "\n"


_ESTIMATES = {
    COMPOUND: "Equations",
    NAIVE: "Q of O",
    PRICED: "Priced",
    ANOTHER_SEED: "Another seed",
    UNCHANGED: "E itself",
}
"""Estimates as column titles."""


def cumulativeness_markdown(study: pd.DataFrame, chances: Mapping[str, float]) -> str:
    """Print what ``cumulativeness.cumulativeness`` returns: three tables per dataset.

    Args:
        study: the estimates.
        chances: by dataset, the metric of always answering the most frequent class.
    """
    every = quality(study["metric"], several="the metric")
    parts = [
        "# Can a pipeline be predicted from its parts?",
        "Tradeoff curves estimated from O, D, P and E alone, against the measured ones. Mean ± SD of the\n"
        "seeds.\n\n"
        "- **Equations**: 1-5 of Xin et al. 2022. Where P and Q meet, PQ is measured as one operator.\n"
        "- **Q of O**: Q's saving is taken from O instead.\n"
        f"- **Priced**: {every} by equations 1 and 2. Inputs leave where they leave E, at the layer that\n"
        "  corresponds, and the time is the price of leaving there.\n"
        "- **Another seed** of the same ordering, as if it were a prediction: the best to be expected.\n"
        "- **E itself**, as if D and P changed nothing: an estimate that is no better is of no use.",
    ]
    summarised = estimates.summary(study)
    if summarised.empty:
        parts.append("- nothing to estimate: no operator set holds E with D or P.")
    for (dataset, metric), rows in _by_dataset(summarised):
        what = quality([metric])
        parts += [
            f"## {heading(dataset, metric)}",
            f"Mean difference in {what} at the same time, percentage points:",
            _errors_as_text(rows, "mean_accuracy_error", factor=1, digits=2, unit=""),
            f"Largest difference in {what} at the same time, percentage points:",
            _errors_as_text(rows, "max_accuracy_error", factor=1, digits=2, unit=""),
            "Mean relative difference in time at the same threshold:",
            _errors_as_text(rows, "mean_time_error", factor=100, digits=1, unit="%"),
            "At full depth (means): estimated by the equations, and measured.",
            _full_depth_as_text(rows[rows["estimate"] == COMPOUND], what),
        ]
        if note := _below_chance(study[study["dataset"] == dataset], chances[dataset]):
            parts.append(f"- {note}")
    if (summarised["n_seeds"] == 1).any():
        parts.append(f"- {_ONE_SEED}")
    return "\n\n".join(parts) + "\n"


def _errors_as_text(rows: pd.DataFrame, error: str, *, factor: float, digits: int, unit: str) -> str:
    """One error of every curve, a column per estimate."""
    shown = [estimate for estimate in _ESTIMATES if estimate in set(rows["estimate"])]
    cells = {
        (row["operators"], row["pipeline"], row["inference"], row["estimate"]): mean_and_sd_as_text(
            factor * row[f"{error}_mean"], factor * row[f"{error}_sd"], digits=digits
        )
        + unit
        for row in _records(rows)
    }
    table = [
        ["+".join(operators), pipeline, inference or "-"]
        + [cells.get((operators, pipeline, inference, estimate), "") for estimate in shown]
        for operators, pipeline, inference in dict.fromkeys(key[:3] for key in cells)
    ]
    return markdown_table(
        ["Operators", "Order", "Run with", *(_ESTIMATES[estimate] for estimate in shown)], table
    )


def _by_dataset(table: pd.DataFrame) -> Any:
    """Its rows by dataset and metric."""
    return table.groupby(["dataset", "metric"], sort=False)


def _full_depth_as_text(rows: pd.DataFrame, what: str) -> str:
    table = [
        ["+".join(row["operators"]), row["pipeline"], row["inference"] or "-"]
        + [f"{100 * row[name]:.1f}" for name in ("accuracy_estimated", "accuracy")]
        + [f"{row[name]:.3f}" for name in ("time_relative_estimated", "time_relative")]
        for row in _records(rows)
    ]
    what = capitalised(what)
    header = [f"{what} est., %", f"{what}, %", "Time / O est.", "Time / O"]
    return markdown_table(["Operators", "Order", "Run with", *header], table)


def _below_chance(study: pd.DataFrame, chance: float) -> str:
    """Say where equations 1 and 2 predict less than the most frequent class."""
    points = study[(study["estimate"] == COMPOUND) & (study["inference"] == "")]
    below = points[points["accuracy_estimated"] < chance]
    if below.empty:
        return ""
    return (
        f"{', '.join(dict.fromkeys(below['pipeline']))}: {len(below)} of {len(points)} points are estimated "
        f"below chance ({100 * chance:.1f}%). There E's exits are near chance, and equations 1 and 2 scale "
        "what they answer down further."
    )


def costeff_markdown(table: pd.DataFrame) -> str:
    """Print what ``joint.costeff`` returns, a table per dataset."""
    what = quality(table["metric"])
    times = [f"t = {budget.replace('_', '/')}" for budget in BUDGETS]
    header = ["Pipeline", "Run with", "Parameters", "FLOPs", "Full depth, %", *times, "Area, %"]
    parts = [
        "# COST-EFF: joint training against operators one after the other",
        "C is slenderised and trained with all its exits at once; the others apply D, P and E in turn.\n"
        f"Parameters (all exits included) and FLOPs (full depth) are over O's. Then {what}: at full\n"
        "depth, and at the best threshold within a time t of O's, padded, fp32 (- where no answer comes so\n"
        f"soon). Area: the mean {what} over all times up to O's, 0 where there is no answer. Mean ± SD over\n"
        "the seeds.",
    ]
    for (dataset, metric), rows in _by_dataset(table):
        cells = [_costeff_cells(row) for row in _records(rows)]
        parts += [f"## {heading(dataset, metric)}", markdown_table(header, cells)]
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


def recommendation_markdown(table: pd.DataFrame) -> str:
    """Print what ``regret.regret`` returns: how good the choice is in words, then by budget and by rule."""
    summarised, what = regret.summary(table), quality(table["metric"])
    parts = [
        "# How good is the recommendation?",
        *("\n".join(_regret_in_words(rows)) for _, rows in summarised.groupby("dataset", sort=False)),
        "From runs of single operators alone, the pipeline is chosen that is expected to be the best within\n"
        f"a time t. There are {regret.BUDGETS} budgets, log-spaced from the fastest point that was measured\n"
        f"to O's time. Regret: the {what} of the best measured pipeline within t minus that of the chosen\n"
        "one, percentage points. Where the choice takes longer than t (*), its largest threshold that does\n"
        "not counts. Alone: regret of the best single operator. Rank: Spearman's correlation of predicted\n"
        f"with measured {what}. Intervals are made from the errors of other sets of operators.",
    ]
    for (dataset, metric), rows in _by_dataset(table):
        parts += [f"## {heading(dataset, metric)}", _choices_as_text(rows)]
        rules = summarised[(summarised["dataset"] == dataset) & (summarised["operators"] != regret.ANY)]
        if not rules.empty:
            parts += [
                "Rules that choose an order without measuring it. *Weaker first* (arXiv 2603.18426): the\n"
                f"operator that alone costs the least {what} comes first. *D, P, Q, E*: arXiv 2403.17447.\n"
                "Of an order that is not valid, the valid one that exchanges the fewest pairs is taken.\n"
                "Regret against the best ordering: mean over the budgets (largest). Two seeds: how far two\n"
                "of one ordering are apart.",
                _rules_as_text(rules, rows),
            ]
    return "\n\n".join(parts) + "\n"


def _regret_in_words(rows: pd.DataFrame) -> list[str]:
    """Of one dataset, a line per statement."""
    by_rule = {row["rule"]: row for row in _records(rows) if row["operators"] == regret.ANY}
    chosen, alone = by_rule[regret.CHOSEN], by_rule[regret.SINGLE]
    name, what = heading(chosen["dataset"], chosen["metric"]), quality([chosen["metric"]])
    lines = [
        f"- {name}: mean regret {chosen['regret']:.1f} points over {chosen['n'] - chosen['missed']} budgets "
        f"(largest {chosen['worst']:.1f}), from {chosen['trainings']:.0f} trainings of "
        f"{chosen['trainings_all']:.0f} a seed. The best single operator alone: {alone['regret']:.1f}"
        + (f", and none is fast enough at {alone['missed']} budgets" if alone["missed"] else "")
        + (
            ". One seed, so nothing to compare with."
            if math.isnan(chosen["two_seeds"])
            else f". Two seeds of one pipeline differ by {chosen['two_seeds']:.1f}."
        )
    ]
    if math.isnan(chosen["coverage_accuracy"]):
        lines.append(f"- {name}: no intervals; they need two seeds and two sets of operators to compare.")
    else:
        values = "accuracies" if what == "accuracy" else f"values of {what}"
        covered = f"{_percent(chosen['coverage_accuracy'])}% of the {values} of single seeds"
        if not math.isnan(chosen["coverage_time"]):
            covered += f", and {_percent(chosen['coverage_time'])}% of the times that were predicted"
        lines.append(f"- {name}: the 90% intervals cover {covered}.")
    lines.append(
        f"- {name}: {chosen['single']} of {chosen['n']} choices are single operators, which were measured; "
        f"{chosen['over_budget']} took longer than the budget."
    )
    return lines


def _choices_as_text(rows: pd.DataFrame) -> str:
    """A line per budget: what was chosen, what it was expected to give and gives, and what is best."""
    alone = rows[rows["rule"] == regret.SINGLE].set_index("budget")["regret"]
    cells = []
    for row in _records(rows[rows["rule"] == regret.CHOSEN]):
        at = "" if math.isnan(row["threshold"]) else f" at {row['threshold']:g}"
        cells.append(
            [
                f"{row['budget']:.3f}",
                f"{row['chosen'] or '-'}{at}{'*' if row['over_budget'] else ''}",
                _percent(row["accuracy_expected"], row["accuracy_low"], row["accuracy_high"]),
                _percent(row["accuracy"]),
                row["best"],
                _percent(row["best_accuracy"]),
                *(_or_dash(value, ".2f") for value in (row["regret"], alone[row["budget"]])),
                _or_dash(row["rank_correlation"], ".2f"),
            ]
        )
    header = ["t", "Chosen", "Expected, %", "Measured, %", "Best", "Measured, %", "Regret", "Alone", "Rank"]
    return markdown_table(header, cells)


def _rules_as_text(summarised: pd.DataFrame, rows: pd.DataFrame) -> str:
    """A line per set of operators: the orderings that the rules take, and their regret."""
    cells = []
    for operators, of_set in summarised.groupby("operators", sort=False):
        line = ["+".join(str(operators))]
        for rule in (regret.WEAKER, regret.SORTED):
            row = next((row for row in _records(of_set) if row["rule"] == rule), None)
            chosen = rows[(rows["rule"] == rule) & (rows["operators"] == operators)]["chosen"]
            taken = next((name for name in chosen if name), None)  # empty where the ordering is too slow
            if row is None or taken is None:
                line += ["-", "-"]
                continue
            line += [Pipeline(taken).trained, f"{row['regret']:.2f} ({row['worst']:.2f})"]
        cells.append([*line, _or_dash(of_set["two_seeds"].iloc[0], ".2f")])
    header = ["Operators", "Weaker first", "Regret", "D, P, Q, E", "Regret", "Two seeds"]
    return markdown_table(header, cells)


def _percent(value: float, low: float = math.nan, high: float = math.nan) -> str:
    text = _or_dash(100 * value, ".1f")
    return text if math.isnan(low) else f"{text} ({100 * low:.1f}-{100 * high:.1f})"


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:+.2f} to {high:+.2f}"


def _table2_cells(row: Mapping[str, Any]) -> list[str]:
    def text(measure: str, digits: int) -> str:
        return mean_and_sd_as_text(row[f"{measure}_mean"], row[f"{measure}_sd"], digits=digits)

    savings = [text(f"saving_{letters}", 0) + "%" for letters in ("q", "l", "lq", "lq_est")]
    change = row["acc_change_q_mean"]
    return [
        text("acc_raw", 1),
        text("acc_q", 1) + ("" if math.isnan(change) else f" ({change:+.1f}%)"),
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


def _distances_as_text(table: pd.DataFrame, metrics: Metrics) -> str:
    cells = {
        (row["dataset"], row["pairs"], row["operators"]): mean_and_sd_as_text(row["mean"], row["sd"])
        for row in table.to_dict("records")
    }
    rows = [
        [heading(dataset, metrics[dataset]) if pairs == "same" else "", order]
        + [cells.get((dataset, pairs, operators), "-") for operators in table["operators"].unique()]
        for dataset in table["dataset"].unique()
        for pairs, order in [("same", "Same"), ("different", "Diff."), ("one seed", "Diff., one seed")]
        if any((dataset, pairs, operators) in cells for operators in table["operators"].unique())
    ]
    return markdown_table(["Dataset", "Order", *map("+".join, table["operators"].unique())], rows)


def _p_values_as_text(comparisons: Mapping[tuple[str, str], Comparison], metrics: Metrics) -> str:
    sets = list(dict.fromkeys(operators for _, operators in comparisons))
    rows = [
        [heading(dataset, metrics[dataset])]
        + [_p_value_as_text(comparisons.get((dataset, operators))) for operators in sets]
        for dataset in dict.fromkeys(dataset for dataset, _ in comparisons)
    ]
    return markdown_table(["Dataset", *map("+".join, sets)], rows)


def _notes(comparisons: Mapping[tuple[str, str], Comparison], metrics: Metrics) -> list[str]:
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
            cells.setdefault(note, []).append(f"{name} on {heading(dataset, metrics[dataset])}")
    return [f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in cells.items()]


def _seeds_needed(*, num_orderings: int) -> int:
    return next(s for s in count(2) if smallest_p_value(num_orderings=num_orderings, num_seeds=s) < _LEVEL)


def _p_value_as_text(c: Comparison | None) -> str:
    if c is None or math.isnan(c.p_value):
        return "-"
    p, smallest = (f"{p:.3f}" if p >= 0.001 else f"{p:.1g}" for p in (c.p_value, c.smallest_p_value))
    return f"{p} ({smallest})"
