"""Sharing GPUs, with a stand-in for nvidia-smi that lists two."""

import os
import subprocess
import sys

import pytest

from pipeops.errors import PipeOpsError
from pipeops.training.gpus import VISIBLE, installed, leased

HOLD = """
import os, sys
from pipeops.training.gpus import leased
with leased("auto", slots=int(sys.argv[1])):
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv(VISIBLE, raising=False)


def holder(slots):
    """Another process that holds a slot until it is told to end; and the GPU it got."""
    command = [sys.executable, "-c", HOLD, str(slots)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_jobs_spread_over_gpus_share_them_and_free_them_when_killed(two_gpus):
    assert installed() == ["GPU-a", "GPU-b"]
    held = [holder(2) for _ in range(4)]
    try:
        assert [gpu for _, gpu in held] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]
        held[1][0].kill()
        held[1][0].wait()
        with leased("gpu", slots=2):
            assert os.environ[VISIBLE] == "GPU-b"
        assert VISIBLE not in os.environ
    finally:
        for process, _ in held:
            process.kill()
            process.communicate()


def test_a_job_waits_for_a_slot(two_gpus):
    held = [holder(1) for _ in range(2)]
    command = [sys.executable, "-c", HOLD, "1"]
    waiting = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
        held[0][0].communicate("\n")
        assert waiting.stdout.readline().strip() == "GPU-a"
    finally:
        for process in (waiting, held[0][0], held[1][0]):
            process.kill()
            process.wait()


def test_a_job_that_takes_both_waits_for_both(two_gpus):
    with leased("gpu", slots=1, gpus=2):
        assert os.environ[VISIBLE] == "GPU-a,GPU-b"
    too_few = pytest.raises(PipeOpsError, match="training.gpus_per_training: 3, but this machine has 2")
    with too_few, leased("gpu", slots=1, gpus=3):
        pass


def test_what_is_visible_already_is_respected(two_gpus, monkeypatch):
    monkeypatch.setenv(VISIBLE, "3")
    with leased("gpu", slots=1):
        assert os.environ[VISIBLE] == "3"
    too_few = pytest.raises(PipeOpsError, match="gpus_per_training: 2, but CUDA_VISIBLE_DEVICES is 3; give")
    with too_few, leased("gpu", slots=1, gpus=2):
        pass
    monkeypatch.setenv(VISIBLE, "")
    with leased("auto", slots=1):
        assert os.environ[VISIBLE] == ""


def test_a_gpu_asked_for_where_there_is_none(monkeypatch):
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr("pipeops.training.gpus.installed", list)
    with (
        pytest.raises(PipeOpsError, match="training.device: a GPU is asked for and there is none; set it to"),
        leased("gpu", slots=1),
    ):
        pass
    with leased("auto", slots=1):
        assert VISIBLE not in os.environ


def test_cpu_hides_the_gpus(two_gpus):
    with leased("cpu", slots=1):
        assert os.environ[VISIBLE] == ""
