"""The tutorial, command by command, on fewer rows and a smaller study."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from helpers import BIN, ROOT, STUDY

PAGE = (ROOT / "docs/tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
ROWS = 300
SMALLER = {
    **{key: STUDY[key] for key in ("operator_sets", "measuring", "prices", "check")},
    "seeds": [1],
    "pipelines": ["O", "D", "E"],
    "table2": ["O"],
    "pretraining": {"examples": 300, "threads": 1},
    "training": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of what the commands read, so that they write nothing into the repository."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in ("Snakefile", "config.yaml", "workflow", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(command, folder):
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_command_of_the_tutorial_runs(folder):
    said = {}
    for language, text in BLOCKS:
        if language == "python":
            assert "range(3000)" in text
            run([sys.executable, "-c", text.replace("range(3000)", f"range({ROWS})")], folder)
            continue
        for command in text.splitlines():
            said[command] = run(["bash", "-c", command], folder)
            if command.startswith("pipeops init"):
                written = yaml.safe_load((folder / "tickets.yaml").read_text())
                (folder / "tickets.yaml").write_text(yaml.safe_dump(written | SMALLER))
    by_start = {" ".join(command.split()[:2]): output for command, output in said.items()}
    assert re.search(r"texts: message\nlabels: topic, 4 classes \(billing \d+%, ", by_start["pipeops init"])
    assert written["tasks"] == {
        "tickets": {
            "files": {"train": "tickets.csv"},
            "held_out": 0.2,
            "text": "message",
            "label": "topic",
        }
    }
    assert by_start["pipeops recommend"].startswith("Take ")
    label, probability = by_start["python deployed/classify.py"].split("\t")
    # So small a study learns little: what is tested is the way, not the answer.
    assert label in ("account", "billing", "delivery", "praise")
    assert 0.25 <= float(probability) <= 1
    assert re.search(r"^\| billing +\| [\d.]+% ", by_start["pipeops score"], flags=re.MULTILINE)
