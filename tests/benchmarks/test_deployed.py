"""The benchmark of deployed folders runs, and finds no difference."""

import re
import subprocess
import sys

from deployed import word_tokenizer
from helpers import ROOT, write_backbone

from pipeops.integrity import seal


def test_a_quick_run_finds_no_difference(tmp_path):
    write_backbone(tmp_path / "encoder", family="bert")
    word_tokenizer("bert").save(str(tmp_path / "encoder/tokenizer.json"))
    seal(tmp_path / "encoder")
    effort = ["--texts", "40", "--tokens", "30", "--max-length", "20", "--starts", "1"]
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks/deployed.py", "--encoder", tmp_path / "encoder", *effort],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| 40 of 40 (" in run.stdout
    assert len(re.findall(r"\| 30 of 30; longest text 100,\d+ characters", run.stdout)) == 2
    assert "imports of torch, transformers, pipeops: none" in run.stdout
