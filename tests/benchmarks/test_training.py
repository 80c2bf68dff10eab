"""The benchmarks of training and of planning run; what they measure on so little means nothing."""

import json
import subprocess
import sys

from helpers import ROOT

MEASURES = ("plain Trainer, fp32", "bf16", "fused AdamW", "pinned memory", "all but compiling")


def run(name, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_training_prints_the_measures_that_mean_something_here():
    size = ["--layers", "2", "--hidden", "64", "--vocab", "100", "--length", "16", "--batch", "2"]
    out = run(
        "training.py",
        *size,
        "--steps",
        "2",
        "--training",
        "distillation",
        "--jobs",
        "2",
        "--measures",
        *MEASURES,
    )
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line[:1] == "|"
    ]
    rates = {row[1]: float(row[2]) for row in rows if row[0] == "distillation"}
    # What this machine does not have is left out.
    assert set(rates) == {"plain Trainer, fp32", "bf16", "fused AdamW", "all but compiling"}
    assert min(rates.values()) > 0
    [side_by_side] = [row for row in rows if row[0].startswith("all") and row[1] == "2"]
    assert float(side_by_side[2]) > 0
    assert json.loads(out.splitlines()[-1])["torch"]


def test_planning_counts_the_jobs():
    out = run("dag.py", "--jobs", "80")
    [row] = [line for line in out.splitlines() if line.startswith("| 1")]
    jobs, planned, _, described, megabytes = (float(cell) for cell in row.strip("|").split("|"))
    # Per dataset 13 trainings, exports, evaluations and curves, 9 prices, 7 checks; then 15 analyses.
    assert jobs == 2 * (3 * 13 + 13 + 9 + 7) + 1 + 4 + 15 + 1
    assert 0 < planned < described
    assert megabytes > 10
