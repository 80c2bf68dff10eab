"""What the parts of the GPU benchmark are made of, without a GPU."""

import subprocess
import sys
import time

import gpu
import pytest
import torch
import training
from helpers import ROOT


def program(text):
    return [sys.executable, "-c", text]


def test_what_a_command_said_is_kept_if_it_succeeds_and_it_is_not_run_again(tmp_path, capfd):
    path, deadline = tmp_path / "said.txt", time.monotonic() + 60
    assert gpu.kept(program("print('wrong'); exit(3)"), path, deadline) == 3
    assert not path.exists()
    assert gpu.kept(program("print('right')"), path, deadline) == 0
    assert path.read_text() == "right\n"
    assert gpu.kept(program("exit(3)"), path, deadline) == 0
    assert capfd.readouterr().out.splitlines() == ["wrong", "", "right", "", f"{path}: done"]


def test_a_command_is_asked_to_end_when_its_time_is_up(tmp_path):
    saved = tmp_path / "saved"
    saving = f"""
import signal, sys, time
def save(*_):
    open({str(saved)!r}, "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
time.sleep(60)
"""
    assert gpu.within(program(saving), time.monotonic() + 2) == gpu.STOPPED
    assert saved.exists()


def test_what_it_measures_is_measured():
    assert set(gpu.MEASURES) <= set(training.MEASURES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("part", ["tests", "training", "studies"])
def test_without_a_gpu_it_says_so(part):
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks/gpu.py", part], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == "there is no GPU that PyTorch can use; see what nvidia-smi says\n"
