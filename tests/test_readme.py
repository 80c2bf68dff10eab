"""The README's snippets run: its Python, and every shell line that needs no hub and no long run."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from helpers import BIN, ROOT

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
NOT_RUN = ("git clone", "cd ", "python3.11 -m venv .venv", ".venv/bin/pip install torch")
LAYERS = 6  # of the tiny backbone: five thresholds in the README


def blocks(*languages: str) -> list[str]:
    return [text for _, language, text in BLOCK.findall(README) if language in languages]


def shell_lines() -> list[str]:
    """Commands of the README, one each, without comments and with their continuation lines."""
    lines = "".join(blocks("", "sh")).replace("\\\n", " ").splitlines()
    commands = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    return [part for command in commands if command for part in command.split(" && ")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the commands read, so that they write nothing into the repository."""
    folder = tmp_path_factory.mktemp("pipeops")
    for name in ("Snakefile", "config.yaml", "Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("configs", "profiles", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def run(command: list[str], folder):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dry(command: str) -> list[str] | None:
    """The command as it can be run in seconds; None where it cannot."""
    if any(command.startswith(known) for known in NOT_RUN):
        return None
    words = shlex.split(command)
    match words:
        case ["make", *targets]:
            return ["make", "--dry-run", *targets]
        case ["snakemake", *arguments]:
            return ["snakemake", *([] if "-n" in arguments else ["-n"]), *arguments]
        case ["pipeops", *_]:
            return words
    raise AssertionError(f"not known how to check: {command}")


@pytest.mark.parametrize("command", [line for line in shell_lines() if "/path/to" not in line])
def test_shell_line(command, checkout):
    words = dry(command)
    if words is None:
        pytest.skip("clones, or changes an environment")
    output = run(words, checkout)
    if words[0] == "snakemake":
        assert re.search(r"^table1 +1$", output, flags=re.MULTILINE)


@pytest.mark.parametrize("command", [line for line in shell_lines() if "/path/to" in line])
def test_shell_line_with_real_data(command, checkout, glue, minilm):
    command = command.replace("/path/to/glue", str(glue)).replace("/path/to/minilm", str(minilm))
    assert re.search(r"^train +\d+$", run(dry(command), checkout), flags=re.MULTILINE)


def test_the_version_of_torch_is_the_locked_one():
    locked = re.search(r"^torch==\S+$", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"torch==\S+", README)) == {locked[0]}


def test_python_snippets(tmp_path):
    """In a folder that holds what the workflow leaves there, with random weights."""
    import torch

    from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
    from pipeops.onnx.export import export
    from pipeops.training.pretraining import word_tokenizer

    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    config = MultiExitConfig(
        family="roberta",
        vocab_size=len(tokenizer),
        hidden_size=16,
        head_size=4,
        heads_per_layer=[4] * LAYERS,
        ffn_per_layer=[24] * LAYERS,
        exit_layers=list(range(1, LAYERS + 1)),
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        sep_token_id=tokenizer.sep_token_id,
        id2label={0: "negative", 1: "positive"},
    )
    for pipeline in set(re.findall(r"generated-sentiment/([A-Z]+)/seed1", README)):
        trained = tmp_path / f"results/models/generated-sentiment/{pipeline}/seed1"
        MultiExitForSequenceClassification(config).save_pretrained(trained)
        tokenizer.save_pretrained(trained)
        export(
            trained,
            tmp_path / f"results/onnx/generated-sentiment/{pipeline}/seed1",
            confidence="max_probability",
        )
    snippets = blocks("python")
    assert snippets
    for snippet in snippets:
        output = run([sys.executable, "-c", snippet], tmp_path)
        assert re.search(r"\[\[.*\]\] +[1-6]$", output.strip(), flags=re.DOTALL)
