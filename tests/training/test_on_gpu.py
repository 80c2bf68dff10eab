"""Trainings on a real GPU: ``pytest -m gpu`` where there is one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from helpers import same_weights, stop_dropping_out, training_command, write_backbone, write_examples

from pipeops.operators.declaration import NoSettings
from pipeops.settings import TrainingSettings
from pipeops.training.gpus import VISIBLE, installed
from pipeops.training.job import Job, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
]
ROWS, BATCH = 4096, 512
ROUNDING = 5e-3
"""TF32 products and atomic sums: two trainings on a GPU are not the same bytes."""
LEASE = """
import os, sys
from pipeops.training.gpus import leased
with leased("gpu", slots=int(sys.argv[1])):
    import torch
    torch.ones(1, device="cuda")
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Job:
    """O of a small encoder without dropout, so that two trainings differ by rounding only."""
    folder = tmp_path_factory.mktemp("gpu")
    base = stop_dropping_out(write_backbone(folder / "base", hidden_size=256))
    return Job(
        operator="O",
        parent=None,
        backbone=base,
        data=write_examples(folder / "train.parquet", rows=ROWS),
        seed=1,
        settings=TrainingSettings(epochs=4, batch_size=BATCH, learning_rate=1e-3, precision="fp32"),
        own_settings=NoSettings(),
        device="gpu",
    )


@pytest.fixture(scope="module")
def original(plain, tmp_path_factory):
    """O, trained eagerly in fp32."""
    folder = tmp_path_factory.mktemp("original")
    train(plain, folder / "O", state_root=folder / "state")
    return folder / "O"


def record(folder) -> dict:
    return json.loads((folder / "training.json").read_text())


def losses(folder) -> list[float]:
    return [row["loss"] for row in record(folder)["log"] if "loss" in row]


def change(job: Job, **settings) -> Job:
    return replace(job, settings=job.settings.model_copy(update=settings))


def derived(plain, original, operator) -> Job:
    return plain if operator == "O" else replace(plain, operator=operator, parent=original)


def test_it_is_the_gpu_that_trains_and_it_learns(original):
    assert record(original)["parameters"]["device"] == torch.cuda.get_device_name()
    found = losses(original)
    assert found[-1] < 0.5 * found[0]


@pytest.mark.parametrize("operator", ["O", "D", "E"])
def test_losses_in_bf16_are_those_in_fp32_but_for_rounding(plain, original, tmp_path, operator):
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bf16")
    given = derived(plain, original, operator)
    for precision in ("fp32", "bf16"):
        train(change(given, precision=precision), tmp_path / precision, state_root=tmp_path / "state")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.1, abs=0.02)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")


@pytest.mark.parametrize("operator", ["O", "D", "E"])
def test_compiled_with_cuda_graphs_the_weights_are_the_same_but_for_rounding(
    plain, original, tmp_path, operator
):
    given = derived(plain, original, operator)
    for name, compiled in (("eager", False), ("compiled", True)):
        train(replace(given, compiled=compiled), tmp_path / name, state_root=tmp_path / "state")
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=0.05, abs=0.01)
    assert same_weights(tmp_path / "eager", tmp_path / "compiled", atol=2e-2)


def test_a_gpu_that_is_too_small_gets_half_the_batch(plain, tmp_path, capfd):
    """Its memory is limited to what lies between a half batch and a whole one."""
    whole = change(plain, batch_size=ROWS)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(whole, tmp_path / "whole", state_root=tmp_path / "state")
    peak, memory = torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    capfd.readouterr()
    try:
        torch.cuda.set_per_process_memory_fraction(0.75 * peak / memory)
        train(whole, tmp_path / "halves", state_root=tmp_path / "state")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of GPU memory: again, with half the examples at a time" in capfd.readouterr().err
    assert same_weights(tmp_path / "whole", tmp_path / "halves", atol=ROUNDING)


def test_a_killed_training_resumes_on_the_gpu(plain, original, tmp_path):
    given = change(plain, epochs=200.0, checkpoint_every=0.01)
    state, output = tmp_path / "state", tmp_path / "O"
    command = training_command(given, output, state, "--device", "gpu")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(state.glob("*/*/checkpoint-*/SHA256SUMS")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / "model.safetensors").exists()
    resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming at checkpoint-" in resumed.stderr
    steps = [row["step"] for row in record(output)["log"]]
    assert steps == sorted(steps)
    assert losses(output)[-1] < losses(original)[-1]


@pytest.mark.skipif(VISIBLE in os.environ, reason=f"{VISIBLE} is set: GPUs are not leased")
def test_two_jobs_share_a_card_or_wait_for_it(tmp_path, monkeypatch):
    """With as many jobs as slots on all cards, each has one; one more waits until another ends."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    cards = installed()

    def job(slots):
        command = [sys.executable, "-c", LEASE, str(slots)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    jobs = [job(2) for _ in range(2 * len(cards))]
    try:
        assert sorted(one.stdout.readline().strip() for one in jobs) == sorted(2 * cards)
        waiting = job(2)
        jobs.append(waiting)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
        jobs[0].communicate("\n")
        assert re.fullmatch(r"GPU-\S+", waiting.stdout.readline().strip())
    finally:
        for one in jobs:
            one.kill()
            one.wait()
