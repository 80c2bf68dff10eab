from test_commutativity import flat

from pipeops.commutativity import Comparison, compare
from pipeops.reporting import paper_table1, table1_markdown

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
    assert text.endswith("The paper's own figures (RoBERTa-base):\n\n" + PAPER)
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
    start = lines.index("| Dataset         | Order | D+E          | P+E          | D+P+E        |")
    assert lines[start:][:17] == [
        "| Dataset         | Order | D+E          | P+E          | D+P+E        |",
        "| --------------- | ----- | ------------ | ------------ | ------------ |",
        "| generated-pairs | Same  | 1.50 ± 0.71  | 1.00 ± 0.00  | 1.33 ± 0.50  |",
        "|                 | Diff. | 2.50 ± 1.29  | 10.00 ± 0.82 | 13.33 ± 4.95 |",
        "| SST-2           | Same  | 0.00 ± 0.00  | -            | -            |",
        "|                 | Diff. | 10.00 ± 0.00 | -            | -            |",
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
