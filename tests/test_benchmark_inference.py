"""The benchmark of inference runs; what it measures on a tiny model means nothing."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "inference.py"


def test_a_quick_run_reports_every_comparison():
    sizes = ["--layers", "2", "--hidden", "64", "--vocab", "100"]
    effort = ["--lengths", "8", "16", "--rounds", "3", "--threads", "1"]
    run = subprocess.run(
        [sys.executable, SCRIPT, *sizes, *effort], capture_output=True, text=True, check=True
    )
    cell = r" +│ +"
    row = cell.join(
        [r"│ (8|16)", "(full depth|layer 1)", r"([\d.]+)", "([a-z ]+?)", r"([\d.]+)", r"([\d.]+) "]
    )
    rows = re.findall(row, run.stdout)
    compared = [(length, early, base) for length, early, _, base, _, _ in rows]
    assert compared == [
        (length, *pair)
        for length in ("8", "16")
        for pair in (("full depth", "every exit"), ("full depth", "one exit"), ("layer 1", "one layer"))
    ]
    assert all(float(row[2]) > 0 and float(row[4]) > 0 and float(row[5]) > 0 for row in rows)
    assert run.stderr == ""
