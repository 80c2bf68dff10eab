"""What a training shows: lines with its losses on standard error, as training.json has them."""

import json
import re
from dataclasses import replace

import pytest
import torch
from helpers import write_backbone, write_examples
from safetensors.torch import load_file
from transformers import Trainer

from pipeops.errors import PipeOpsError
from pipeops.settings import TrainingSettings
from pipeops.training.job import Job, train
from pipeops.training.stages import OperatorTrainer
from pipeops.training.trainer import ReproducibleTrainer, WithoutWalks, log_line


def test_lines_of_the_log():
    logs = {"loss": 0.69314, "grad_norm": 1.5, "learning_rate": 5e-4, "epoch": 0.4}
    assert log_line(logs, 1200, 10_000) == (
        "step 1,200 of 10,000: loss 0.6931, learning rate 0.0005, gradient norm 1.5, epoch 0.4"
    )
    assert (
        log_line({"train_runtime": 75.2, "train_loss": 0.5}, 10, 10) == "trained in 1 min 15 s, mean loss 0.5"
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return Job(
        operator="O",
        parent=None,
        backbone=write_backbone(folder / "base"),
        data=write_examples(folder / "train.parquet"),
        seed=1,
        settings=TrainingSettings(epochs=2, batch_size=8, precision="fp32"),
        own_settings=None,
    )


def test_a_training_says_its_losses_on_standard_error_and_keeps_them(job, tmp_path, capfd):
    train(job, tmp_path / "O", state_root=tmp_path / "state")
    out, err = capfd.readouterr()
    assert out == ""
    logged = json.loads((tmp_path / "O/training.json").read_text())["log"]
    losses = [(row["step"], row["loss"]) for row in logged if "loss" in row]
    assert losses
    said = re.findall(r"^step (\d+) of 12: loss (\S+), learning rate", err, flags=re.MULTILINE)
    assert said == [(str(step), f"{loss:.4g}") for step, loss in losses]
    assert re.search(r"^trained in \d+ s, mean loss \d", err, flags=re.MULTILINE)
    assert "\r" not in err


def test_operations_are_counted_as_trainer_counts_them(job, tmp_path, monkeypatch):
    counted = {}
    for name in ("ours", "trainer"):
        train(job, tmp_path / name, state_root=tmp_path / "state")
        [counted[name]] = [
            row["total_flos"]
            for row in json.loads((tmp_path / name / "training.json").read_text())["log"]
            if "total_flos" in row
        ]
        monkeypatch.setattr(ReproducibleTrainer, "floating_point_ops", Trainer.floating_point_ops)
    assert counted["ours"] == counted["trainer"] > 0


def test_what_walks_over_the_model_at_every_step_is_spared_and_changes_nothing(job, tmp_path, monkeypatch):
    told = []

    def counted(self, mode=True):
        told[-1] += 1
        return torch.nn.Module.train(self, mode)

    monkeypatch.setattr(torch.nn.Embedding, "train", counted, raising=False)
    for name in ("ours", "trainer"):
        told.append(0)
        train(job, tmp_path / name, state_root=tmp_path / "state")
        monkeypatch.setattr(WithoutWalks, "on_train_begin", lambda *_, **__: None)
        monkeypatch.setattr(ReproducibleTrainer, "_clip_grad_norm", Trainer._clip_grad_norm)
    assert told[1] - told[0] >= 11 * 3  # of 12 steps, for the words, places and segments
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("ours", "trainer"))
    assert ours.read_bytes() == theirs.read_bytes()
    norms = [
        [row["grad_norm"] for row in json.loads((tmp_path / name / "training.json").read_text())["log"][:-1]]
        for name in ("ours", "trainer")
    ]
    assert norms[0] == norms[1]


def test_a_trained_model_has_the_methods_of_its_class(job, tmp_path, monkeypatch):
    closed, close = [], WithoutWalks.close

    def closing(self):
        closed.append(set(vars(self._trainer.model_wrapped)))
        close(self)
        closed.append(set(vars(self._trainer.model_wrapped)))

    monkeypatch.setattr(WithoutWalks, "close", closing)
    train(job, tmp_path / "O", state_root=tmp_path / "state")
    while_trained, afterwards = closed
    assert while_trained - afterwards == {"train", "zero_grad"}


@pytest.mark.parametrize("step", [0, 5, 11])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_and_saves_nothing(
    job, tmp_path, monkeypatch, step, value
):
    right = OperatorTrainer.compute_loss

    def wrong(self, *arguments, **named):
        loss = right(self, *arguments, **named)
        return loss * (value if self.state.global_step == step else 1)

    monkeypatch.setattr(OperatorTrainer, "compute_loss", wrong)
    with pytest.raises(PipeOpsError, match=r"^step (\d+) of 12: .*, at a peak learning rate of .*; lower"):
        train(job, tmp_path / "O", state_root=tmp_path / "state")
    assert not (tmp_path / "O").exists()
    assert not list((tmp_path / "state").glob("*/*/finished"))
    for weights in (tmp_path / "state").glob("*/*/checkpoint-*/model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(weights).values())
    # What was saved before is finite, so the same training goes on from it once the loss is.
    monkeypatch.setattr(OperatorTrainer, "compute_loss", right)
    train(job, tmp_path / "O", state_root=tmp_path / "state")
    train(job, tmp_path / "again", state_root=tmp_path / "other")
    assert (tmp_path / "O/model.safetensors").read_bytes() == (
        tmp_path / "again/model.safetensors"
    ).read_bytes()


def test_weights_that_the_last_step_spoils_are_not_saved(job, tmp_path, monkeypatch):
    def spoil(self, *arguments, **named):
        with torch.no_grad():
            next(self.model.parameters()).mul_(float("inf"))

    once = replace(job, settings=job.settings.model_copy(update={"checkpoint_every": 1.0}))
    monkeypatch.setattr(OperatorTrainer, "log", spoil)
    with pytest.raises(PipeOpsError, match="weights are infinite or no numbers, at a peak learning rate of"):
        train(once, tmp_path / "O", state_root=tmp_path / "state")
    assert not (tmp_path / "O").exists()
