"""Published pages of results say what follows from the published answers and prices."""

import collections
import subprocess
import sys

import pytest
from helpers import ROOT, SNAKEMAKE

PAGES = sorted(path for path in (ROOT / "docs/results").glob("*.md") if "<!-- " in path.read_text())
SECOND_CPU = "-amx"
"""What the results of a study are called with the second CPU's prices."""
OF_SEVERAL = ("README", "second-cpu")
"""Pages about several studies."""
sys.path.append(str(ROOT / "docs/results"))
from tables import BLOCK, filled  # noqa: E402  (a script, not a package)


def test_a_block_ends_where_its_table_ends(tmp_path):
    (tmp_path / "table1.md").write_text(
        "# T\n\n| a |\n| - |\n| 1 |\n\nText.\n\n| b | Run with |\n| - | - |\n| 2 | Q |\n| 3 | - |\n"
    )
    (tmp_path / "x.md").write_text("- one\n  two Steps trained: E 3\n- three\n\nnot - this\n")
    page = (
        "Before.\n\n<!-- table1: 1 -->\n| old |\n| --- |\n\nAfter.\n<!-- table1: 2, run with - -->\n"
        "<!-- x: list -->\n- old\n  item\nEnd.\n"
    )
    assert filled(page, tmp_path) == (
        "Before.\n\n<!-- table1: 1 -->\n| a |\n| - |\n| 1 |\n\nAfter.\n<!-- table1: 2, run with - -->\n"
        "| b | Run with |\n| - | - |\n| 3 | - |\n<!-- x: list -->\n- one two\n- three\nEnd.\n"
    )


def test_tables_and_lists_of_several_studies_stand_one_below_the_other(tmp_path):
    for study, row, width in (
        ("a", "| SST-2 | 1.2 |", "-----"),
        ("b", "| a longer name | 3 |", "-------------"),
    ):
        (tmp_path / study).mkdir()
        text = f"- of {study}\n\n| Dataset | D+E |\n| {width} | --- |\n{row}\n\n| t |\n| - |\n| {width} |\n"
        (tmp_path / study / "table1.md").write_text(text)
    page = "<!-- table1: 1, of b a -->\n\n<!-- table1: list, of a b -->\n\n<!-- table1: 2, of a -->\n"
    assert filled(page, tmp_path) == (
        "<!-- table1: 1, of b a -->\n"
        "| Dataset       | D+E |\n| ------------- | --- |\n| a longer name | 3   |\n| SST-2         | 1.2 |\n"
        "\n<!-- table1: list, of a b -->\n- of a\n- of b\n"
        "\n<!-- table1: 2, of a -->\n| Study | t     |\n| ----- | ----- |\n| a     | ----- |\n"
    )


def test_a_study_that_lacks_a_column_has_dashes_there(tmp_path):
    for study, columns in (("a", "| Dataset | D+E |"), ("b", "| Dataset | D+E | P+E |")):
        (tmp_path / study).mkdir()
        rule, row = "|---" * columns.count(" | ") + "|---|", columns.replace("Dataset", study)
        (tmp_path / study / "table1.md").write_text(f"{columns}\n{rule}\n{row}\n")
    assert filled("<!-- table1: 1, of a b -->\n", tmp_path).splitlines()[1:] == [
        "| Dataset | D+E | P+E |",
        "| ------- | --- | --- |",
        "| a       | D+E | -   |",
        "| b       | D+E | P+E |",
    ]


def test_what_studies_say_together_is_estimated_over_their_tasks(tmp_path):
    """DE is ahead of ED by 3 and 5 points on average, by 4 over both."""
    given = "dataset,pipeline,seed,inference,threshold,metric,accuracy,time_relative"
    alike = "time_ms,mean_exit_layer,flops_relative,flops,parameters,parameters_relative"
    rest = f"{',1' * 6},fp32\n"
    for task, lead in (("sst2", 0.03), ("mrpc", 0.05)):
        for pipeline, accuracy in (("DE", 0.8 + lead), ("ED", 0.8)):
            path = tmp_path / task / f"curves/{task}/{pipeline}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                f"{task},{pipeline},{seed},,{threshold},accuracy,{accuracy + noise:.2f},{time}{rest}"
                for seed, noise in ((1, 0.01 * (pipeline == "DE")), (2, 0))
                for threshold, time in ((0.5, 0.2), (1.01, 0.6))
            ]
            path.write_text(f"{given},{alike},kernels\n{''.join(rows)}")
            path.with_suffix(".exits.csv").write_text("not a curve\n")
    text = filled("<!-- effects: 1, of mrpc sst2 -->\n", tmp_path)
    [row] = [line for line in text.splitlines() if "DE - ED" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["D+E", "DE - ED", "2", "4", "+4.50"]


def run_as_published(study, sources, folder):
    """Make the named tables of a study from its published data."""
    tables = [f"results/{study}/{source}.csv" for source in sorted(sources)]
    data, name = ROOT / "docs/results/data", study.removesuffix(SECOND_CPU)
    given = [f"answers={data / name}"]
    if study != name:
        given += [f"prices_from={data / 'amx'}", f"pathvars={{results: results/{study}, logs: logs/{study}}}"]
    options = ["--configfile", str(ROOT / f"configs/{name}.yaml"), "--config", *given]
    subprocess.run([*SNAKEMAKE, "--cores", "2", *options, "--", *tables], cwd=folder, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_follows_from_its_published_data(page, tmp_path):
    sources = collections.defaultdict(set)
    for source, *_, of in BLOCK.findall(page.read_text()):
        for study in of.split() or [page.stem]:
            sources[study].add("commutativity" if source in ("exits", "effects") else source)
    for study, wanted in sources.items():
        run_as_published(study, wanted, tmp_path)
    results = tmp_path / "results" / ("" if page.stem in OF_SEVERAL else page.stem)
    assert filled(page.read_text(), results) == page.read_text()
