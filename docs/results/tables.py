"""Fill the tables of a page of results from what studies wrote. The text around them stays.

python docs/results/tables.py docs/results/sst2-minilm.md results/sst2-minilm
python docs/results/tables.py docs/results/README.md results

A comment before each table says where it comes from:

<!-- table1: 2 -->                            the second table of table1.md
<!-- cumulativeness: 1, run with - LQ -->     rows of the first that were run with nothing or with LQ
<!-- commutativity: list -->                  the sentences of commutativity.md
<!-- exits -->                                the accuracy of every exit
<!-- table1: 2, of mrpc-minilm sst2-minilm --> the second tables of these studies, one below the other
<!-- effects: 1, of mrpc-minilm sst2-minilm --> what these studies say together, which none of them wrote
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import pandas as pd

from pipeops.analysis.runs import read_runs
from pipeops.analysis.tables import effects
from pipeops.analysis.verdicts import MARGIN
from pipeops.files import replaced
from pipeops.study.config import Config
from pipeops.text import markdown_table

WIDTH = 120
BLOCK = re.compile(
    r"^<!-- ([\w-]+)(?:: (\w+))?(?:, run with ([-\w ]+))?(?:, of ([-\w ]+))? -->\n(?:[|-].*\n|  \S.*\n)*",
    re.M,
)
"""A comment, and the table or list that follows it."""


def filled(page: str, results: Path) -> str:
    """The page with every table and list as the study in ``results``, or the studies there, have it now."""

    def block(found: re.Match[str]) -> str:
        source, what, run_with, of = found.groups()
        comment = found[0].partition("\n")[0]
        if source == "exits":
            lines = exits(results)
        elif source == "effects":
            lines = _pieces(_effects([results / study for study in of.split()]), what)
        elif of:
            written = {study: results / study / f"{source}.md" for study in of.split()}
            lines = _joined({study: _pieces(path.read_text(), what) for study, path in written.items()})
        else:
            lines = _pieces((results / f"{source}.md").read_text(), what)
        if run_with:
            place = _cells(lines[0]).index("Run with")
            lines = lines[:2] + [line for line in lines[2:] if _cells(line)[place] in run_with.split()]
        return "\n".join([comment, *lines]) + "\n"

    return BLOCK.sub(block, page)


def _pieces(text: str, what: str) -> list[str]:
    """Lines of the list, or of a table by its number, in a page that the workflow wrote."""
    if what == "list":
        items = re.findall(r"^- .*(?:\n  .*)*", text, re.M)
        return [fill(_short(item), WIDTH, subsequent_indent="  ") for item in items]
    return re.findall(r"(?:^\|.*\n?)+", text, re.M)[int(what) - 1].strip().splitlines()


def _joined(parts: Mapping[str, list[str]]) -> list[str]:
    """Lists, or tables, one below the other; with a dash for a column that a study lacks."""
    first = next(iter(parts.values()))
    if not first[0].startswith("|"):
        return [line for part in parts.values() for line in part]
    header = max((_cells(part[0]) for part in parts.values()), key=len)
    rows = {study: [_cells(line) for line in part[2:]] for study, part in parts.items()}
    for study, part in parts.items():
        if (own := _cells(part[0])) != header:
            rows[study] = [
                [dict(zip(own, row, strict=True)).get(name, "-") for name in header] for row in rows[study]
            ]
    if header[0] == "Dataset":
        return markdown_table(header, [row for part in rows.values() for row in part]).splitlines()
    named = [[study, *row] for study, part in rows.items() for row in part]
    return markdown_table(["Study", *header], named).splitlines()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _effects(folders: Sequence[Path]) -> str:
    """The page of the mixed-effects model over the tasks of several studies."""
    curves = [path for folder in folders for path in folder.glob("curves/*/*.csv") if path.stem.isupper()]
    return effects(read_runs(sorted(curves)), Config().operator_sets, margin=MARGIN).markdown


def _short(item: str) -> str:
    """A sentence without what a table of the page says: how many steps were trained."""
    return " ".join(item.partition(" Steps trained: ")[0].split())


def exits(results: Path) -> list[str]:
    """A row per pipeline: accuracy of its exits, mean of the seeds and the lowest, and of the last with Q."""
    tables = [pd.read_csv(path, keep_default_na=False) for path in results.glob("curves/*/*.exits.csv")]
    table = pd.concat(tables).assign(accuracy=lambda rows: 100 * rows["accuracy"].astype(float))
    layers = sorted(table["exit_layer"].unique())
    names = sorted(table["pipeline"].unique(), key=lambda name: ("E" in name, name != "O", len(name), name))
    rows = []
    for name in names:
        rows.append([name])
        here = table[table["pipeline"] == name]
        accuracies = here[here["inference"] == ""].groupby("exit_layer")["accuracy"]
        said = {layer: f"{of.mean():.1f} ({of.min():.1f})" for layer, of in accuracies}
        last = here[(here["inference"] == "Q") & (here["exit_layer"] == here["exit_layer"].max())]
        rows[-1] += [said.get(layer, "") for layer in layers] + [f"{last['accuracy'].mean():.1f}"]
    header = ["pipeline", *(f"layer {layer:g}" for layer in layers), "last, with Q"]
    return markdown_table(header, rows).splitlines()


if __name__ == "__main__":
    page, results = map(Path, sys.argv[1:])
    with replaced(page) as temporary:
        temporary.write_text(filled(page.read_text(), results))
