"""The benchmark of inference runs; what it measures on a tiny model means nothing."""

import os
import re
import subprocess
import sys

from helpers import ROOT

SCRIPT = ROOT / "benchmarks" / "inference.py"
COMPARED = [
    ("fp32 full depth", "fp32 every exit"),
    ("fp32 full depth", "fp32 one exit"),
    ("fp32 layer 1", "fp32 one layer"),
    ("int8 full depth", "int8 every exit"),
    ("fp32 every exit", "int8 every exit"),
    ("fp32 full depth", "int8 full depth"),
    ("fp32 layer 1", "int8 layer 1"),
]


def test_a_quick_run_reports_every_comparison():
    sizes = ["--layers", "2", "--hidden", "64", "--vocab", "100"]
    effort = ["--lengths", "8", "16", "--rounds", "3", "--threads", "1"]
    without_data = {name: value for name, value in os.environ.items() if not name.startswith("PIPEOPS_")}
    run = subprocess.run(
        [sys.executable, SCRIPT, *sizes, *effort],
        capture_output=True,
        text=True,
        check=True,
        env=without_data | {"COLUMNS": "120"},
    )
    name, number = "((?:fp32|int8) [a-z0-9 ]+?)", r"([\d.]+)"
    row = " +│ +".join(["│ (8|16)", name, number, name, number, number])
    rows = re.findall(row, run.stdout)
    compared = [(length, first, base) for length, first, _, base, _, _ in rows]
    assert compared == [(length, *pair) for length in ("8", "16") for pair in COMPARED]
    assert all(float(row[2]) > 0 and float(row[4]) > 0 and float(row[5]) > 0 for row in rows)
    assert "model-int8.onnx / model.onnx" in run.stdout
    assert "Table 2 skipped: give --glue and --tokenizer" in run.stdout
    assert run.stderr == ""
