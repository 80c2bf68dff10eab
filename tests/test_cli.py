import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipeops import __version__
from pipeops.cli import app, main

RULES = ["backbone", "tokenise", "train", "export", "evaluate", "price", "check"]


@pytest.mark.parametrize("command", RULES)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert re.search(r"--output", result.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokenise", "sst3", "train", "--backbone", "b", "--output", "o"], "unknown dataset 'sst3'"),
        (["export", "no/such/checkpoint", "--output", "o"], "no/such/checkpoint/config.json: not found"),
        (
            [
                *("price", "--backbone", "tiny", "--lengths", "no.txt", "--output", "x", "--operators", "E"),
                *("--settings", '{"prices": {"thread": 1}}'),
            ],
            "unknown key 'prices.thread' (did you mean 'threads'?)",
        ),
        (
            [
                "train",
                "O",
                "--backbone",
                "b",
                "--data",
                "d",
                "--output",
                "o",
                "--seed",
                "1",
                "--settings",
                "[1]",
            ],
            "--settings: [1] is no object of sections",
        ),
        (
            [
                *("train", "O", "--backbone", "b", "--data", "d", "--output", "o", "--seed", "1"),
                *("--settings", '{"training": {"epochs": -1}}'),
            ],
            "training.epochs: input should be greater than 0 (got -1)",
        ),
        (
            [
                *("train", "D", "--backbone", "b", "--data", "d", "--output", "o", "--seed", "1"),
                *("--parent", "p", "--input", "studnet=s"),
            ],
            "--input: operator D has no input 'studnet'; it takes student",
        ),
        (["price", "--backbone", "tiny", "--lengths", "no.txt"], "no.txt: not found"),
        (["deploy", "ELD", "o", "--dataset", "sst2", "--seed", "1"], "D cannot come after L"),
        (
            ["deploy", "EL", "o", "--dataset", "sst3", "--seed", "1"],
            "unknown dataset 'sst3' (did you mean 'sst2'?)",
        ),
        (
            ["deploy", "EL", "o", "--dataset", "sst2", "--seed", "1", "--results", "no"],
            "no/models/sst2/E/seed1/config.json: not found",
        ),
        (
            ["price", "--backbone", "tiny", "--lengths", "no.txt", "--operators", "PD"],
            "--output: is needed with --operators",
        ),
        (
            [
                *("evaluate", "m", "--data", "no.parquet", "--output", "x", "--dataset", "d"),
                *("--pipeline", "O", "--seed", "1"),
            ],
            "no.parquet: not found",
        ),
        (
            [
                *("check", "m", "--original", "o", "--data", "d", "--output", "x"),
                *("--answers", "a.parquet", "--prices", "p.csv"),
            ],
            "a.parquet: not found",
        ),
        (["backbone", "/no/such/folder", "--output", "o"], "backbone '/no/such/folder' cannot be read"),
    ],
)
def test_bad_input_is_one_line_on_stderr(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipeops", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_version_is_printed():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.strip()) == (0, __version__)


def test_python_m_pipeops_and_a_missing_option():
    run = subprocess.run(
        [sys.executable, "-m", "pipeops", "export"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_the_command_line_imports_nothing_heavy():
    script = "import sys, pipeops.cli; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "onnxruntime", "pandas"} & set(run.stdout.split())
