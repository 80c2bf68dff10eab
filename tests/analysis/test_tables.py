import itertools
import json

import pandas as pd
from helpers import flat, measured, savings_run
from measured import curves_of, made_up_replays

from pipeops.analysis import tables
from pipeops.analysis.commutativity import Comparison, compare
from pipeops.analysis.cumulativeness import cumulativeness
from pipeops.analysis.paper import paper_table1
from pipeops.analysis.savings import table2
from pipeops.analysis.tables import cumulativeness_markdown, table1_markdown, table2_markdown
from pipeops.measuring.classes import MCC
from pipeops.text import html_page

PAPER = """\
| Dataset | Order | D+E         | P+E         | D+P+E       |
| ------- | ----- | ----------- | ----------- | ----------- |
| MRPC    | Same  | 1.57 ± 0.69 | 2.31 ± 0.85 | 1.53 ± 0.62 |
|         | Diff. | 1.74 ± 0.40 | 4.12 ± 1.10 | 2.59 ± 0.97 |
| SST-2   | Same  | 1.30 ± 0.39 | 1.64 ± 0.46 | 1.49 ± 0.53 |
|         | Diff. | 1.48 ± 0.46 | 1.84 ± 0.62 | 1.98 ± 0.82 |
| QNLI    | Same  | 2.24 ± 1.20 | 4.40 ± 2.49 | 3.41 ± 2.51 |
|         | Diff. | 3.93 ± 0.82 | 4.58 ± 2.39 | 4.91 ± 2.44 |
| QQP     | Same  | 2.38 ± 1.36 | 2.11 ± 0.86 | 2.30 ± 1.05 |
|         | Diff. | 3.64 ± 1.14 | 3.30 ± 1.27 | 4.56 ± 1.71 |
"""


def test_the_papers_own_table_is_printed_for_its_datasets() -> None:
    result = compare(flat({"DE": [80, 81], "ED": [84, 82]}))
    text = table1_markdown({(dataset, "DE"): result for dataset in ("sst2", "qqp", "mrpc", "qnli")})
    assert text.endswith("Xin et al. 2022 (RoBERTa-base):\n\n" + PAPER)
    assert "paper" not in table1_markdown({("generated-pairs", "DE"): result})
    assert len(paper_table1()) == 4 * 2 * 3


def test_markdown_as_printed() -> None:
    comparisons: dict[tuple[str, str], Comparison] = {
        ("generated-pairs", "DE"): compare(flat({"DE": [80, 81], "ED": [84, 82]})),
        ("generated-pairs", "PE"): compare(flat({"PE": [80, 81], "EP": [90, 91]})),
        ("generated-pairs", "DPE"): compare(
            flat({"DEP": [70, 71, 72], "DPE": [80, 81, 82], "EDP": [90, 91, 92]})
        ),
        ("sst2", "DE"): compare(flat({"DE": [80] * 13, "ED": [90] * 13})),
    }
    lines = table1_markdown(comparisons).splitlines()
    start = lines.index("| Dataset         | Order           | D+E          | P+E          | D+P+E        |")
    assert lines[start:][:19] == [
        "| Dataset         | Order           | D+E          | P+E          | D+P+E        |",
        "| --------------- | --------------- | ------------ | ------------ | ------------ |",
        "| generated-pairs | Same            | 1.50 ± 0.71  | 1.00 ± 0.00  | 1.33 ± 0.50  |",
        "|                 | Diff.           | 2.50 ± 0.71  | 10.00 ± 1.41 | 13.33 ± 5.06 |",
        "|                 | Diff., one seed | 2.50 ± 2.12  | 10.00 ± 0.00 | 13.33 ± 5.00 |",
        "| SST-2           | Same            | 0.00 ± 0.00  | -            | -            |",
        "|                 | Diff.           | 10.00 ± 0.00 | -            | -            |",
        "|                 | Diff., one seed | 10.00 ± 0.00 | -            | -            |",
        "",
        "p-value of Diff. > Same (in brackets: the smallest that this number of seeds allows), by a",
        "permutation test per cell, not corrected for the number of cells:",
        "",
        "| Dataset         | D+E             | P+E           | D+P+E         |",
        "| --------------- | --------------- | ------------- | ------------- |",
        "| generated-pairs | 0.500 (0.500)   | 0.500 (0.500) | 0.028 (0.028) |",
        "| SST-2           | 0.0002 (0.0002) | -             | -             |",
        "",
        "- D+E, P+E: 2 seeds cannot give a p-value below 0.05, whatever the curves; 6 can.",
        "",
    ]


def savings_of(*seeds: int, dataset: str = "sst2") -> pd.DataFrame:
    options = {"left_q": 0.4, "left_l": 0.2, "left_lq": 0.1}
    rows = []
    for seed in seeds:
        rows += savings_run("O", seed, accuracy=0.9 + seed / 100, accuracy_q=0.9, time=1.0 + seed, **options)
        rows += savings_run("DP", seed, accuracy=0.8, accuracy_q=0.8, time=0.5, **options)
    return table2(pd.DataFrame(rows).assign(dataset=dataset), ["O", "DP"])


def test_table_2_has_the_papers_rows_beside_ours() -> None:
    lines = table2_markdown(savings_of(1, 2)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Dataset"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    savings = ["60 ± 0%", "80 ± 0%", "90 ± 0%", "92 ± 0%"]
    assert cells[2:] == [
        ["SST-2", "O", "91.5 ± 0.7", "90.0 ± 0.0 (-1.6%)", "25.0 ± 7.1", *savings],
        ["", "O, Xin et al. 2022", "93.7", "93.5 (-0.2%)", "170.8", "50%", "86%", "97%", "93%"],
        ["", "DP", "80.0 ± 0.0", "80.0 ± 0.0 (+0.0%)", "5.00 ± 0.00", *savings],
        ["", "DP, Xin et al. 2022", "92.0", "90.9 (-1.2%)", "62.9", "65%", "88%", "97%", "96%"],
    ]


def test_one_seed_has_means_only_and_says_so() -> None:
    text = table2_markdown(savings_of(1, dataset="generated-sentiment"))
    assert "Xin et al." not in text
    assert "| 91.0 " in text
    assert text.endswith("- one seed: no standard deviations.\n")
    estimates = cumulativeness_markdown(cumulativeness(measured(seeds=[1]), ["DE"]), {"sst2": 0.5})
    assert "±" not in estimates.split("| Operators")[1]
    assert estimates.endswith("- one seed: no standard deviations.\n")


def rows_below(text: str, line: str) -> list[list[str]]:
    """Cells of the table that follows this line, its header first."""
    _, _, rest = text.partition(line)
    table = itertools.takewhile(lambda row: row.startswith("|"), rest.strip().splitlines())
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_estimates_as_printed() -> None:
    study = cumulativeness(measured(("O", "D", "P", "E", "PE")), ["PE"])
    text = cumulativeness_markdown(study, {"sst2": 0.4})
    header, _, *rows = rows_below(text, "Mean relative difference in time at the same threshold:")
    assert header == ["Operators", "Order", "Run with", "Equations", "Q of O", "Another seed", "E itself"]
    assert [row[:3] for row in rows] == [["P+E", "PE", inference] for inference in ("-", "L", "Q", "LQ")]
    # P leaves 0.6 of the time; with Q it is 0.18 where E has 0.5.
    assert rows[0][3:] == ["0.0 ± 0.0%", "", "0.0 ± 0.0%", "66.7 ± 0.0%"]
    assert rows[2][3:] == ["0.0 ± 0.0%", "66.7 ± 0.0%", "0.0 ± 0.0%", "177.8 ± 0.0%"]
    _, _, *depth = rows_below(text, "measured.\n\n| Operators".removesuffix("| Operators"))
    assert depth[2] == ["P+E", "PE", "Q", "70.6", "70.6", "0.180", "0.180"]
    assert "below chance" not in text


def test_estimates_below_chance_are_said() -> None:
    study = cumulativeness(measured(("O", "D", "P", "E", "DE", "ED")), ["DE"])
    text = cumulativeness_markdown(study, {"sst2": 0.55})
    assert "- DE, ED: 4 of 12 points are estimated below chance (55.0%)" in text


def test_nothing_estimated_is_said() -> None:
    text = cumulativeness_markdown(cumulativeness(measured(), []), {})
    assert "no operator set holds E with D or P" in text


def test_a_verdict_says_how_long_its_models_were_trained() -> None:
    replays = made_up_replays(
        [(ordering, seed) for ordering in ("DE", "ED") for seed in (1, 2, 3)], thresholds=[0, 0.7, 1.01]
    )
    steps = {"sst2": {"DE": 1125, "ED": 375}}
    made = tables.commutativity(curves_of(replays), ["DE"], margin=2.0, steps=steps, replays=replays)
    assert "Steps trained: DE 1,125, ED 375\n" in made.markdown
    header, _, row = rows_below(made.markdown, "answer the same examples.")
    values = dict(zip(header, row, strict=True))
    assert 0 < float(values["Priced twice"]) < float(values["Sampling"])
    of_table1 = tables.table1(curves_of(replays), ["DE"], margin=2.0, steps=steps)
    assert "Steps trained: DE 1,125, ED 375\n" in of_table1.markdown


PIPELINES = ("O", "D", "P", "E", "DP", "DE", "ED", "PE", "EP")


def test_what_one_seed_does_not_tell_is_a_dash() -> None:
    replays = made_up_replays([("DE", 1), ("ED", 1)], thresholds=[0, 0.7, 1.01])
    made = tables.commutativity(curves_of(replays), ["DE"], margin=2.0, steps={}, replays=replays)
    assert made.numbers[["low", "high", "same_ordering"]].isna().all(axis=None)
    assert "nan" not in html_page(made.markdown)
    header, _, row = rows_below(made.markdown, "cells (Holm).")
    values = dict(zip(header, row, strict=True))
    assert float(values["Difference"])
    assert (values["90% interval"], values["Bootstrap"], values["Verdict"]) == ("-", "-", "no verdict")


def test_effects_over_tasks_as_printed() -> None:
    one = measured()
    other = one.assign(dataset="mrpc", metric="mcc")
    other["accuracy"] = other["accuracy"].where(other["pipeline"] != "DE", other["accuracy"] - 0.03)
    table = tables.effects(pd.concat([one, other]), ["PE", "DE"], margin=2)
    assert "Difference in each task's metric of two orderings" in table.markdown
    rows = [line for line in table.markdown.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| Operators | Orderings | Tasks | Runs | Effect | 90% interval")
    assert rows[2].startswith("| P+E       | EP - PE   | 2     | 4    | +0.00")
    assert rows[3].startswith("| D+E       | DE - ED   | 2     | 4    | -1.50")
    assert rows[3].endswith("| undecided |")


def test_the_recommendation_begins_with_words() -> None:
    runs = [(pipeline, seed) for pipeline in PIPELINES for seed in (1, 2, 3)]
    replays = made_up_replays(runs, thresholds=[0, 0.7, 1.01])
    made = tables.recommendation(pd.DataFrame(), [], replays=replays)
    chosen = made.numbers[made.numbers["rule"] == "predicted"]
    lines = made.markdown.splitlines()
    assert lines[2].startswith(
        f"- SST-2: mean regret {chosen['regret'].mean():.1f} points over 10 budgets (largest "
        f"{chosen['regret'].max():.1f}), from 4 trainings of 9 a seed. The best single operator alone: "
    )
    assert f"cover {100 * chosen['coverage_accuracy'].iloc[0]:.1f}% of the accuracies" in lines[3]
    header, _, *rows = rows_below(made.markdown, "## SST-2\n")
    assert header[:4] == ["t", "Chosen", "Expected, %", "Measured, %"]
    assert len(rows) == 10
    assert rows[-1][6] == f"{chosen['regret'].iloc[-1]:.2f}"
    header, _, *rules = rows_below(made.markdown, "one ordering are apart.".replace("one", "of one"))
    assert header == ["Operators", "Weaker first", "Regret", "D, P, Q, E", "Regret", "Two seeds"]
    assert [(row[0], row[3]) for row in rules] == [("D+E", "DE"), ("P+E", "PE")]


def test_an_ordering_that_is_too_slow_at_a_budget_keeps_its_name() -> None:
    """Without a threshold of 0 the fastest points of orderings differ."""
    names = [*PIPELINES, "DPE", "DEP", "EDP"]
    runs = [(pipeline, seed) for pipeline in names for seed in (1, 2, 3)]
    replays = made_up_replays(runs, thresholds=[0.8, 0.9, 1.01])
    made = tables.recommendation(pd.DataFrame(), [], replays=replays)
    assert (made.numbers["chosen"] == "").any()
    _, _, *rules = rows_below(made.markdown, "of one ordering are apart.")
    assert [row[3] for row in rules if row[0] == "D+P+E"] == ["DPE"]


def test_a_recommendation_of_one_seed_says_what_is_missing() -> None:
    replays = made_up_replays([(pipeline, 1) for pipeline in PIPELINES], thresholds=[0, 0.7, 1.01])
    text = tables.recommendation(pd.DataFrame(), [], replays=replays).markdown
    assert "Regret: the accuracy of the best measured pipeline" in text
    assert "One seed, so nothing to compare with.\n- SST-2: no intervals; they need two seeds" in text
    assert "nan" not in text


def in_metrics(table: pd.DataFrame, **metrics: str) -> pd.DataFrame:
    """The same measurements of several datasets, each in a metric of its own."""
    named = [table.assign(dataset=dataset, metric=metric) for dataset, metric in metrics.items()]
    return pd.concat(named, ignore_index=True)


def test_tables_name_a_metric_that_is_not_accuracy() -> None:
    one = in_metrics(measured(), reviews="macro_f1")
    two = in_metrics(measured(), reviews="macro_f1", sst2="accuracy")
    options = {"margin": 2.0, "steps": {}}
    alone, beside = (tables.table1(table, ["DE"], **options) for table in (one, two))
    assert alone.numbers.columns.tolist()[:3] == ["dataset", "metric", "operators"]
    assert dict(zip(beside.numbers["dataset"], beside.numbers["metric"], strict=True)) == {
        "reviews": "macro_f1",
        "sst2": "accuracy",
    }
    assert "two macro-F1-time curves in percentage points of macro-F1, mean" in alone.markdown
    assert "- D+E on reviews (macro-F1): the order does not matter" in alone.markdown
    assert "two metric-time curves in percentage points of metric, mean" in beside.markdown
    assert [row[0] for row in rows_below(beside.markdown, "cells:")[2:]] == ["reviews (macro-F1)", "SST-2"]
    values = measured().assign(time_ms=1.0)
    for metrics, what in (({"reviews": "mcc"}, "MCC"), ({"reviews": "mcc", "sst2": "accuracy"}, "Metric")):
        text = table2_markdown(table2(in_metrics(values, **metrics), ["O"]))
        assert f"{what} without and with Q" in text
        header, _, row, *_ = rows_below(text, "Mean ± SD over the seeds.")
        assert (header[2], row[0]) == (f"{what}, %", "reviews (MCC)")
    estimates = cumulativeness_markdown(cumulativeness(two, ["DE"]), {"reviews": 0.3, "sst2": 0.5})
    of_reviews, of_sst2 = estimates.split("\n## ")[1:]
    assert of_reviews.startswith("reviews (macro-F1)\n\nMean difference in macro-F1 at the same time")
    assert "| Macro-F1 est., % | Macro-F1, % |" in of_reviews
    assert of_sst2.startswith("SST-2\n\nMean difference in accuracy at the same time")


def test_a_metric_that_is_not_positive_has_no_relative_change() -> None:
    rows = savings_run("O", 1, accuracy=0.0, accuracy_q=-0.1, time=1.0, left_q=0.5, left_l=0.5, left_lq=0.2)
    table = table2(pd.DataFrame(rows).assign(dataset="reviews", metric="mcc"), ["O"])
    assert table["acc_change_q_mean"].isna().all()
    _, _, row = rows_below(table2_markdown(table), "Mean ± SD over the seeds.")
    assert row[2:4] == ["0.0", "-10.0"]


def test_the_formula_of_sampling_is_left_out_where_it_does_not_hold() -> None:
    runs = [(ordering, seed) for ordering in ("DE", "ED") for seed in (1, 2)]
    replays = made_up_replays(runs, thresholds=[0, 0.7, 1.01], metric=MCC, every=5)
    text = tables.commutativity(curves_of(replays), ["DE"], margin=2, steps={}, replays=replays).markdown
    header, _, row = rows_below(text, "The former is known of accuracy only.")
    assert (header[4], row[4]) == ("Sampling", "-")
    assert "Difference in MCC of two orderings" in text


def test_a_table_is_written_in_all_its_forms(tmp_path) -> None:
    table = savings_of(1, 2)
    outputs = {form: str(tmp_path / f"table2.{form}") for form in ("csv", "md", "html", "json")}
    tables.save(tables.Table(table, table2_markdown(table)), outputs, {"seeds": [1, 2]})
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table2.csv"), table)
    html = (tmp_path / "table2.html").read_text()
    assert "<td>O, Xin et al. 2022</td>" in html
    assert html.count("<tr>") == 5
    about = json.loads((tmp_path / "table2.json").read_text())
    assert about["parameters"] == {"seeds": [1, 2]}
    assert about["packages"]["onnxruntime"]


def test_a_page_escapes_what_looks_like_html() -> None:
    assert "<script>" not in html_page("# a\n\n<script>alert(1)</script>")
