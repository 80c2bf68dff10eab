"""The benchmark of families; what it measures on tiny models means nothing."""

import re
import subprocess
import sys

from helpers import ROOT

RUNS = ["PyTorch", *(f"{p} {run}" for p in ("fp32", "int8") for run in ("straight", "full depth", "layer 1"))]
FAMILIES = ("RoBERTa", "MPNet", "ModernBERT")


def test_a_quick_run_reports_every_family_and_run_and_keeps_what_it_measured(tmp_path):
    def run(*arguments):
        command = [sys.executable, ROOT / "benchmarks" / "families.py", "--output", tmp_path, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    sizes = ["--layers", "2", "--hidden", "64", "--vocab", "100"]
    first = run(*sizes, "--lengths", "16", "8", "--rounds", "1", "--threads", "1")
    table = first[first.index("| family") :]
    number = r"([\d.]+) \(([\d.]+)\)"
    rows = re.findall(rf"^\| (\w+) +\| (\w[\w ]*?) +\| {number} +\| {number}", table, flags=re.MULTILINE)
    assert re.match(r"\| family +\| run +\| 8 +\| 16 +\|", table)
    assert [row[:2] for row in rows] == [(family, name) for family in FAMILIES for name in RUNS]
    assert run("--parts") == table
