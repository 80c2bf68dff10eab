"""A sample of what `make faults` and `make flips` do with every write and every file."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT


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
