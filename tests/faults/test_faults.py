"""A sample of what `make faults` and `make flips` do with every write and every file."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

from faults import chaos, workshop


def run(*arguments):
    command = [sys.executable, "-m", "faults.every", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc), which the shim is made with")
def test_a_sample_of_faults():
    said = run("faults", "--sample", "3")
    assert "| train C | " in said


def test_a_sample_of_flips():
    assert "| deploy | " in run("flips", "--each", "2")


@pytest.fixture
def left(tmp_path):
    """A function that makes a folder as process 123 may leave it, with a change."""

    def leave(name, **changed):
        content = {"kept": "1", ".made.123.tmp": "half", "state.lock": "123 on host"} | changed
        folder = tmp_path / name
        folder.mkdir()
        for file, text in content.items():
            (folder / file).write_text(text)
        return folder

    return leave


def test_states_of_two_processes_are_alike(left):
    other = left("other", **{".made.45.tmp": "half", "state.lock": "45 on host"})
    (other / ".made.123.tmp").unlink()
    assert workshop.state(left("one"), 123) == workshop.state(other, 45)


@pytest.mark.parametrize("changed", [{"kept": "2"}, {"more": ""}, {".made.123.tmp": "hal"}])
def test_whatever_else_differs_is_another_state(left, changed):
    assert workshop.state(left("one"), 123) != workshop.state(left("other", **changed), 123)


def test_permissions_and_empty_folders_are_part_of_a_state(left):
    before = workshop.state(folder := left("one"))
    (folder / "kept").chmod(0o600)
    with_permissions = workshop.state(folder)
    (folder / "empty").mkdir()
    assert len({before, with_permissions, workshop.state(folder)}) == 3


def test_a_signal_comes_once_cpu_time_was_used():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        assert not chaos.wait(busy, 0.2)
        assert chaos.used(busy) >= 0.2
        busy.kill()
    with subprocess.Popen([sys.executable, "-c", ""]) as short:
        assert chaos.wait(short, 60)
