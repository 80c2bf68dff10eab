"""What a training shows: lines with its losses on standard error, as training.json has them."""

import json
import re

import pytest
from helpers import write_backbone, write_examples

from pipeops.settings import TrainingSettings
from pipeops.training.job import Job, train
from pipeops.training.trainer import log_line


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
