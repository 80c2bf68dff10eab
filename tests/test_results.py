"""Published pages of results say what follows from the published answers and prices."""

import subprocess
import sys

import pytest
from helpers import ROOT, SNAKEMAKE

PAGES = sorted(path for path in (ROOT / "docs/results").glob("*.md") if "<!-- " in path.read_text())
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


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_follows_from_its_published_data(page, tmp_path):
    sources = {found[1] for found in BLOCK.finditer(page.read_text())} - {"exits"}
    results = tmp_path / "results" / page.stem
    tables = [f"results/{page.stem}/{source}.csv" for source in sorted(sources)]
    given = f"answers={ROOT / 'docs/results/data' / page.stem}"
    study = ["--configfile", str(ROOT / f"configs/{page.stem}.yaml"), "--config", given]
    subprocess.run([*SNAKEMAKE, "--cores", "2", *study, "--", *tables], cwd=tmp_path, check=True)
    assert filled(page.read_text(), results) == page.read_text()
