"""The benchmark of measuring runs; what it measures on a tiny model means nothing."""

import json
import subprocess
import sys

from helpers import ROOT, tiny_model, write_examples

from pipeops.onnx.export import export


def test_a_quick_run_counts_layers_and_finds_the_same_exits(tmp_path):
    for name, model in {"O": tiny_model(), "E": tiny_model(exits=True, seed=5)}.items():
        model.save_pretrained(tmp_path / "torch" / name)
        folder = tmp_path / name
        export(tmp_path / "torch" / name, folder)
    data = write_examples(tmp_path / "validation.parquet", rows=30)
    command = [sys.executable, ROOT / "benchmarks/measuring.py", "--original", tmp_path / "O", "--data", data]
    run = subprocess.run(
        [*command, "--model", tmp_path / "E", "--rounds", "3"], capture_output=True, text=True, check=True
    )
    summary = json.loads(run.stdout[run.stdout.index("{") :])
    assert summary["same_exits"]
    assert summary["fewer_layer_runs"] > 10
    refused = subprocess.run(
        [*command, "--model", tmp_path / "O"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "has no early exits" in refused.stderr
