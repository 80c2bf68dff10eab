"""The benchmark of families; what it measures on tiny models means nothing."""

import os
import re
import subprocess
import sys

from helpers import ROOT

RUNS = ["torch", *(f"{p} {run}" for p in ("fp32", "int8") for run in ("straight", "full depth", "layer 1"))]


def test_a_quick_run_reports_every_family_and_run():
    sizes = ["--layers", "2", "--hidden", "64", "--vocab", "100"]
    effort = ["--lengths", "8", "--rounds", "1", "--threads", "1"]
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "families.py", *sizes, *effort],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "120"},
    )
    rows = re.findall(r"│ (\w+) +│ 8 +│ ([a-z0-9 ]+?) +│ ([\d.]+) +│ ([\d.]+)", run.stdout)
    assert [row[:2] for row in rows] == [
        (family, name) for family in ("RoBERTa", "MPNet", "ModernBERT") for name in RUNS
    ]
    assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows)
