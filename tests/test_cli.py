import json
import os
import runpy
import shlex
import signal
import subprocess
import sys

import pandas as pd
import pytest
import typer
from helpers import BIN, ROOT, tiny_model
from typer.testing import CliRunner

from pipeops import __version__
from pipeops.__main__ import main as start
from pipeops.cli import EXIT_STATUS, app, main
from pipeops.operators.builtin import PruningSection
from pipeops.settings import (
    CheckSection,
    ExitTraining,
    MeasuringSection,
    PretrainingSection,
    PricesSection,
    TrainingSettings,
)

COMMANDS = typer.main.get_command(app).commands


def example_of(command) -> list[str]:
    """The lines of a command's example, continuation lines joined."""
    return COMMANDS[command].epilog.partition("Example:\n")[2].replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself_with_an_example(command, option):
    result = CliRunner().invoke(app, [command, option])
    assert result.exit_code == 0
    assert "\nExample:\n" in result.stdout.replace("  ", "")
    for line in example_of(command):
        assert " ".join(line.split()) in " ".join(result.stdout.replace("\\\n", " ").split())
    records = [parameter.help for parameter in COMMANDS[command].params]
    assert all(records), "an argument or option without help"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_understood(command):
    lines = example_of(command)
    assert lines
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert (program, name) == ("pipeops", command)
        COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize(
    ("command", "sections"),
    [
        ("train", {"training": TrainingSettings, "exits": ExitTraining, "pruning": PruningSection}),
        ("price", {"prices": PricesSection, "pruning": PruningSection}),
        ("check", {"check": CheckSection, "measuring": MeasuringSection}),
        ("backbone", {"examples": PretrainingSection}),
    ],
)
def test_the_help_of_settings_names_their_keys(command, sections):
    (option,) = [parameter for parameter in COMMANDS[command].params if parameter.name == "settings"]
    for name, section in sections.items():
        assert name in option.help
        assert ", ".join(section.model_fields) in option.help


def test_the_list_of_commands_cuts_no_sentence():
    result = CliRunner().invoke(app, ["--help"])
    assert "..." not in result.stdout.partition("Commands:")[2]
    for status in EXIT_STATUS:
        assert f"{status} " in result.stdout


def test_the_page_of_commands_is_the_codes():
    path = ROOT / "docs/reference.py"
    made = runpy.run_path(str(path))["reference"]()
    assert path.with_suffix(".md").read_text() == made, "run `make reference`"
    assert all(f"\n## {command}\n" in made for command in COMMANDS)


def test_the_shell_completes_commands_and_options():
    for words, expected in (("pipeops de", "deploy"), ("pipeops deploy --thr", "--threshold")):
        completing = {
            "_PIPEOPS_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        run = subprocess.run(
            [BIN / "pipeops"], env=os.environ | completing, capture_output=True, text=True, check=False
        )
        assert run.stdout.split() == [expected]


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
    assert (run.returncode, run.stdout) == (2, "")
    assert "Missing argument 'checkpoint'" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_interrupted_command_ends_with_130():
    script = (
        # A shell's background jobs, and what they start, are deaf to it.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, time, pipeops.cli, pipeops.study.config as config; sys.argv = ['pipeops', 'predict']\n"
        "config.read_study = lambda _: (print('ready', flush=True), time.sleep(60))\npipeops.cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


def test_interrupted_while_it_is_imported_it_ends_with_130(monkeypatch):
    class Interrupted:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "pipeops.cli", Interrupted())
    with pytest.raises(SystemExit) as end:
        start()
    assert end.value.code == 130


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_standard_streams_are_no_mistake(closed, tmp_path):
    command = [sys.executable, "-m", "pipeops", "export", "absent", "--output", "o"]
    run = subprocess.run(
        ["bash", "-c", f'exec "$@" {closed}', "bash", *command], capture_output=True, text=True, cwd=tmp_path
    )
    line = "error: absent/config.json: not found; absent is not a checkpoint\n"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", "" if "2>" in closed else line)
    assert list(tmp_path.iterdir()) == []


def test_what_standard_output_cannot_encode_is_escaped(tmp_path):
    (tmp_path / "\u00fc.csv").write_text("text,label\n" + "a b,x\nc d,y\n" * 4)
    run = subprocess.run(
        [sys.executable, "-m", "pipeops", "init", "\u00fc.csv", "tiny", "--output", "study.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("\\xfc.csv: 8 rows\n")


def test_an_export_into_its_own_checkpoint_is_refused(tmp_path, monkeypatch, capsys):
    tiny_model().save_pretrained(tmp_path)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["pipeops", "export", str(tmp_path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert (
        capsys.readouterr().err == f"error: {tmp_path}: is an input, and would be overwritten; name another\n"
    )


HEAVY = {"torch", "transformers", "datasets", "onnx", "onnxruntime", "numpy", "pandas", "rich.progress"}


def test_the_command_line_and_its_help_import_nothing_heavy():
    script = (
        "import sys, pipeops.cli; sys.argv[1:] = ['--help']\n"
        "try: pipeops.cli.main()\nexcept SystemExit: print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [(["plan", "--examples-per-second", "400"], {"jobs", "device_hours", "wall_hours", "operators"})],
)
def test_results_are_printed_as_json(arguments, keys):
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert keys <= set(json.loads(result.stdout))


def test_the_price_list_is_printed_as_json(monkeypatch, tmp_path):
    table = pd.DataFrame({"operators": ["O"], "time_ms": [1.5]})
    monkeypatch.setattr("pipeops.measuring.commands.price_pipelines", lambda *_: table)
    arguments = ["price", "--backbone", "tiny", "--lengths", "lengths.txt", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert json.loads(result.stdout) == [{"operators": "O", "time_ms": 1.5}]
    refused = CliRunner().invoke(app, [*arguments, "--operators", "E", "--output", "E.csv"])
    assert "--json: prints the list of every pipeline" in str(refused.exception)
