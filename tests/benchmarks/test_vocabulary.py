"""The benchmark of V; its times on a tiny model mean nothing."""

import re
import subprocess
import sys

from helpers import ROOT


def test_a_quick_run_reports_sizes_times_and_equal_logits():
    sizes = ["--vocab", "3000", "--layers", "2", "--hidden", "64"]
    effort = ["--rows", "20", "--rounds", "1", "--threads", "1"]
    command = [sys.executable, ROOT / "benchmarks/vocabulary.py", *sizes, *effort]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cells = re.findall(r"^\| (\w.*?) +\| ([\d.,]+) +\| ([\d.,]+) +\|", out, flags=re.MULTILINE)
    found = {what: [float(cell.replace(",", "")) for cell in both] for what, *both in cells}
    assert found["tokens"][0] == 3000
    for name in ("tokenizer.json", "model.safetensors", "model.onnx", "model-int8.onnx"):
        before, after = found[f"{name}, MB"]
        assert after < before
    assert len(found) == 8
    assert re.search(r"^fp32: logits of 20 rows differ by 0 at most,.*; 100.0% of", out, flags=re.MULTILINE)
