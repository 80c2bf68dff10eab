"""Imports between packages go one way, as the contract in pyproject.toml has it."""

import subprocess
import sys

import pytest
from helpers import ROOT


def test_imports_go_one_way_and_no_package_is_in_a_cycle():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "1 kept, 0 broken" in run.stdout


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "pipeops.study.planning, pipeops.study.jobs, pipeops.study.plan_text",
            "numpy pandas onnx onnxruntime",
        ),
        ("pipeops.operators.registry", "numpy pandas onnx onnxruntime"),
        ("pipeops.onnx.export, pipeops.onnx.runtime", "datasets"),
        ("pipeops.measuring.evaluate, pipeops.measuring.price, pipeops.measuring.commands", "datasets"),
        ("pipeops.onnx.deploy, pipeops.study.deploying", "datasets"),
        ("pipeops.measuring.replay", "datasets onnx onnxruntime"),
        ("pipeops.analysis.figures, pipeops.analysis.tables", "datasets onnxruntime"),
        ("pipeops.study.recommending", "datasets onnx onnxruntime matplotlib scipy.stats"),
        ("pipeops.hardware", "numpy pandas onnxruntime"),
    ],
)
def test_what_runs_without_torch_does_not_import_it(module, heavy):
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", *heavy.split()} & set(run.stdout.split())
