import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import (
    same_weights,
    stop_dropping_out,
    training_command,
    write_backbone,
    write_classifier,
    write_examples,
)
from safetensors.torch import load_file

from pipeops.data.tokenised import load_tokenised, pad
from pipeops.errors import PipeOpsError, Terminated
from pipeops.integrity import seal
from pipeops.models.classifiers import as_original
from pipeops.models.multi_exit import MultiExitForSequenceClassification, fold_standardisation
from pipeops.onnx.export import export
from pipeops.onnx.runtime import Profiler
from pipeops.operators import base, costeff
from pipeops.operators.builtin import CostEffSection, PruningSection
from pipeops.operators.declaration import NoSettings
from pipeops.pipeline import Pipeline, closure, orderings
from pipeops.settings import ExitTraining, TrainingSettings
from pipeops.training.checkpoints import last_checkpoint, load_model
from pipeops.training.job import Job, train
from pipeops.training.trainer import Termination, fast_attention

OWN = {
    "P": PruningSection(keep_heads=0.5, keep_ffn=0.25),
    "C": CostEffSection(heads=2, ffn=6, rank=8),
}
SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=5e-3)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    write_backbone(folder / "base")
    write_examples(folder / "train.parquet")
    return folder


def job(workshop, operator="O", parent=None, **changes) -> Job:
    plain = Job(
        operator=operator,
        parent=parent,
        backbone=workshop / "base",
        data=workshop / "train.parquet",
        seed=1,
        settings=SETTINGS,
        own_settings=OWN.get(operator, NoSettings()),
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def trained(workshop):
    """Every pipeline of D, P and E, and C, trained."""
    pipelines = closure([Pipeline("C"), *(p for text in ("DE", "PE", "DPE") for p in orderings(text))])
    for pipeline in pipelines:
        parent = workshop / str(pipeline.parent) if pipeline.parent else None
        train(
            job(workshop, pipeline.operator, parent), workshop / str(pipeline), state_root=workshop / "state"
        )
    return {str(pipeline): workshop / str(pipeline) for pipeline in pipelines}


def test_the_closure_has_thirteen_trainings_and_leaves_no_state(trained, workshop):
    assert len(trained) == 13
    assert not list((workshop / "state").iterdir())


@pytest.mark.parametrize(
    ("pipeline", "layers", "exits", "heads", "ffn"),
    [
        ("O", 4, 1, 4, 24),
        ("D", 2, 1, 4, 24),
        ("P", 4, 1, 2, 6),
        ("E", 4, 4, 4, 24),
        ("DE", 2, 2, 4, 24),
        ("ED", 2, 2, 4, 24),
        ("PE", 4, 4, 2, 6),
        ("EP", 4, 4, 2, 6),
        ("DP", 2, 1, 2, 6),
        ("DPE", 2, 2, 2, 6),
        ("DEP", 2, 2, 2, 6),
        ("EDP", 2, 2, 2, 6),
        ("C", 4, 4, 2, 6),
    ],
)
def test_every_pipeline_has_its_shape_and_reloads_into_onnx(
    trained, workshop, tmp_path, pipeline, layers, exits, heads, ffn
):
    model = load_model(trained[pipeline]).eval()
    shape = model.config.shape
    assert (shape.num_layers, len(shape.exit_layers)) == (layers, exits)
    assert set(shape.heads_per_layer) == {heads}
    assert set(shape.ffn_per_layer) == {ffn}
    export(trained[pipeline], tmp_path)
    split = load_tokenised(workshop / "train.parquet")
    ids, mask = pad(split.input_ids[:5], pad_token_id=split.pad_token_id)
    exported = Profiler.load(tmp_path / "profile.onnx", threads=1).run(ids, mask).logits
    with torch.no_grad():
        ours = torch.stack(model(torch.from_numpy(ids), torch.from_numpy(mask)).exit_logits, dim=1)
    assert abs(exported - ours.numpy()).max() < 1e-4


def test_training_learns(workshop, tmp_path):
    settings = SETTINGS.model_copy(update={"epochs": 40.0, "checkpoint_every": 1.0})
    train(job(workshop, settings=settings), tmp_path / "O", state_root=tmp_path / "state")
    log = json.loads((tmp_path / "O" / "training.json").read_text())["log"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert float(losses[0]) > 0.5
    assert float(losses[-1]) < 0.2


@pytest.mark.parametrize("operator", ["O", "P", "C"])
def test_same_seed_gives_the_same_bytes_and_another_does_not(trained, workshop, tmp_path, operator):
    parent = None if operator == "O" else workshop / "O"
    again = tmp_path / "again"
    train(job(workshop, operator, parent), again, state_root=tmp_path / "state")
    expected = (trained[operator] / "model.safetensors").read_bytes()
    assert (again / "model.safetensors").read_bytes() == expected
    other = tmp_path / "other"
    train(job(workshop, operator, parent, seed=2), other, state_root=tmp_path / "state")
    assert (other / "model.safetensors").read_bytes() != expected


@contextmanager
def interrupted_in(stage: str, step: int):
    """While open, a training gets SIGTERM in this step of this stage."""
    on_step_end = Termination.on_step_end

    def asked(self, args, state, control, **others):
        if state.global_step == step and Path(args.output_dir).name == stage:
            os.kill(os.getpid(), signal.SIGTERM)
        on_step_end(self, args, state, control, **others)

    Termination.on_step_end = asked
    try:
        yield
    finally:
        Termination.on_step_end = on_step_end


@pytest.mark.parametrize(("operator", "standardise"), [("E", False), ("E", True), ("P", False)])
def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    trained, workshop, tmp_path, operator, standardise
):
    settings = SETTINGS.model_copy(update={"epochs": 60.0, "checkpoint_every": 0.02})
    exits = ExitTraining(standardise=standardise)
    undisturbed = job(workshop, operator, workshop / "O", settings=settings, exits=exits)
    train(undisturbed, tmp_path / "undisturbed", state_root=tmp_path / "other-state")

    state, output = tmp_path / "state", tmp_path / "killed"
    command = training_command(undisturbed, output, state)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not list(state.glob("*/*/checkpoint-*/SHA256SUMS")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / "model.safetensors").exists()

    resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming at checkpoint-" in resumed.stderr
    assert resumed.stdout == ""
    for name in ("model.safetensors", "config.json"):
        assert (output / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert not list(state.iterdir())


@pytest.mark.parametrize(("operator", "stage", "step"), [("E", "training", 7), ("C", "step1", 4)])
def test_a_terminated_training_saves_its_step_and_resumes_there(
    trained, workshop, tmp_path, operator, stage, step, capfd
):
    given, state, output = job(workshop, operator, workshop / "O"), tmp_path / "state", tmp_path / operator
    with interrupted_in(stage, step), pytest.raises(Terminated) as asked:
        train(given, output, state_root=state)
    assert re.fullmatch(rf"saved at step {step} of \d+; run again, and it resumes there", asked.value.saved)
    assert asked.value.code == 143
    [checkpoint] = state.glob(f"*/{stage}/checkpoint-*")
    assert checkpoint.name == f"checkpoint-{step}"
    assert not list(output.glob("*"))
    assert "mean loss" not in capfd.readouterr().err.splitlines()[-1]
    train(given, output, state_root=state)
    assert f"resuming at checkpoint-{step}\n" in capfd.readouterr().err
    assert (output / "model.safetensors").read_bytes() == (
        trained[operator] / "model.safetensors"
    ).read_bytes()
    assert not list(state.iterdir())


def test_a_stage_that_is_finished_when_the_signal_comes_is_kept(trained, workshop, tmp_path, capfd):
    given, state, output = job(workshop, "C", workshop / "O"), tmp_path / "state", tmp_path / "C"
    last = 12  # of the stage's two epochs of 48 examples in batches of 8
    with interrupted_in("assistant", last), pytest.raises(Terminated) as asked:
        train(given, output, state_root=state)
    assert asked.value.saved == "assistant is finished and saved; run again, and it goes on from there"
    capfd.readouterr()
    train(given, output, state_root=state)
    assert "stage 1 of" not in capfd.readouterr().err
    assert (output / "model.safetensors").read_bytes() == (trained["C"] / "model.safetensors").read_bytes()


def test_a_signal_ends_a_training_within_seconds(trained, workshop, tmp_path):
    settings = SETTINGS.model_copy(update={"epochs": 500.0, "checkpoint_every": 0.01})
    state = tmp_path / "state"
    arguments = training_command(job(workshop, settings=settings), tmp_path / "O", state)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(state.glob("*/*/checkpoint-*/SHA256SUMS")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143
    assert time.monotonic() - asked < 30  # a busy machine; a step takes milliseconds
    step = int(re.search(r"^terminated: saved at step ([\d,]+) of ", said, re.MULTILINE)[1].replace(",", ""))
    assert "Traceback" not in said
    assert len(list(state.glob(f"*/*/checkpoint-{step}"))) == 1


def test_the_successor_of_an_orphan_waits_and_takes_what_it_made(trained, workshop, tmp_path):
    settings = SETTINGS.model_copy(update={"epochs": 100.0})
    state, output = tmp_path / "state", tmp_path / "O"
    arguments = training_command(job(workshop, settings=settings), output, state)
    # As Snakemake does, whose jobs go on when it is killed.
    parent = subprocess.Popen(["sh", "-c", f"{shlex.join(arguments)} & wait"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(state.glob("*.lock")) and time.monotonic() < deadline:
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    successor = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert successor.returncode == 0, successor.stderr
    waiting, made = successor.stderr.splitlines()
    assert re.fullmatch(r"waiting: process \d+ on \S+ trains this model; was its Snakemake .*", waiting)
    assert made == f"{output}: it is trained"
    assert (output / "model.safetensors").exists()
    assert not list(state.iterdir())


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json", "model.safetensors", "rng_state.pth"])
def test_a_damaged_checkpoint_is_not_resumed_from(trained, workshop, tmp_path, name, capfd):
    given, state = job(workshop), tmp_path / "state"
    with interrupted_in("training", 7), pytest.raises(Terminated):
        train(given, tmp_path / "O", state_root=state)
    [file] = state.glob(f"*/*/checkpoint-7/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    capfd.readouterr()
    train(given, tmp_path / "O", state_root=state)
    said = capfd.readouterr().err
    assert "checkpoint-7: damaged, so it is made again" in said
    assert "resuming" not in said
    assert (tmp_path / "O/model.safetensors").read_bytes() == (
        trained["O"] / "model.safetensors"
    ).read_bytes()


def test_c_resumes_between_its_stages(trained, workshop, tmp_path, monkeypatch, capfd):
    """Killed while its third stage is prepared, it goes on there, and ends with the same weights."""
    state, output = tmp_path / "state", tmp_path / "C"
    prepare = costeff.slender

    def killed(*arguments, heads, **others):
        if heads == 2:
            raise KeyboardInterrupt
        return prepare(*arguments, heads=heads, **others)

    monkeypatch.setattr(costeff, "slender", killed)
    with pytest.raises(KeyboardInterrupt):
        train(job(workshop, "C", workshop / "O"), output, state_root=state)
    assert not (output / "model.safetensors").exists()
    assert "stage 2 of 5: step1" in capfd.readouterr().err
    monkeypatch.setattr(costeff, "slender", prepare)
    train(job(workshop, "C", workshop / "O"), output, state_root=state)
    messages = capfd.readouterr().err
    assert "step1" not in messages
    assert "stage 3 of 5: step2" in messages
    assert (output / "model.safetensors").read_bytes() == (trained["C"] / "model.safetensors").read_bytes()
    log = json.loads((output / "training.json").read_text())["log"]
    assert list(dict.fromkeys(row["stage"] for row in log)) == [
        "assistant", "step1", "step2", "recovery", "final"
    ]  # fmt: skip
    assert not list(state.iterdir())


@pytest.mark.parametrize(
    ("changes", "stages", "epochs"),
    [
        ({}, ["assistant", "step1", "step2", "recovery", "final"], 5),
        ({"importance": "last-exit"}, ["assistant", "step1", "step2", "recovery", "final"], 5),
        ({"schedule": "one-shot"}, ["assistant", "step1", "recovery", "final"], 5),
        ({"teacher": "fine-tuned"}, ["step1", "step2", "recovery", "final"], 5),
    ],
)
def test_ablations_of_c_train_equally_long(trained, workshop, tmp_path, changes, stages, epochs):
    settings = SETTINGS.model_copy(update={"epochs": 1.0})
    section = CostEffSection(heads=2, ffn=6, rank=8, **changes)
    train(
        job(workshop, "C", workshop / "O", settings=settings, own_settings=section),
        tmp_path / "C",
        state_root=tmp_path / "s",
    )
    log = json.loads((tmp_path / "C" / "training.json").read_text())["log"]
    assert list(dict.fromkeys(row["stage"] for row in log)) == stages
    assert sum(row["epoch"] for row in log if "train_runtime" in row) == epochs
    config = load_model(tmp_path / "C").config
    assert (config.heads_per_layer, config.ffn_per_layer, config.embedding_rank) == ([2] * 4, [6] * 4, 8)


SEEING = {"pooling": "mean", "standardise": True, "exit_loss": "mean"}


@pytest.fixture(scope="module")
def seeing(workshop):
    """The same pipelines with mean pooling and standardised exits."""
    folder = workshop / "seeing"
    for text in ("O", "E", "D", "ED", "DE", "EP", "C"):
        pipeline = Pipeline.parse(text)
        parent = folder / str(pipeline.parent) if pipeline.parent else None
        exits = ExitTraining(**SEEING)
        train(
            job(workshop, pipeline.operator, parent, exits=exits), folder / text, state_root=folder / "state"
        )
    return folder


@pytest.mark.parametrize("pipeline", ["O", "E", "D", "ED", "DE", "EP", "C"])
def test_a_model_that_sees_is_saved_as_a_plain_one(seeing, trained, workshop, tmp_path, pipeline):
    model = load_model(seeing / pipeline).eval()
    plain = load_file(trained[pipeline] / "model.safetensors")
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in plain.items()
    }
    assert model.config.pooling == "mean"
    assert model.config.exits_standardised == model.config.shape.has_exits
    export(seeing / pipeline, tmp_path)
    split = load_tokenised(workshop / "train.parquet")
    ids, mask = pad(split.input_ids[:5], pad_token_id=split.pad_token_id)
    exported = Profiler.load(tmp_path / "profile.onnx", threads=1).run(ids, mask).logits
    with torch.no_grad():
        ours = torch.stack(model(torch.from_numpy(ids), torch.from_numpy(mask)).exit_logits, dim=1)
    assert abs(exported - ours.numpy()).max() < 1e-5


@pytest.mark.parametrize(("teacher", "stages"), [("assistant", 5), ("fine-tuned", 4)])
def test_c_standardises_the_exits_that_it_adds(workshop, seeing, tmp_path, teacher, stages, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "pipeops.training.stages.fold_standardisation",
        lambda model: (
            seen.append([head.standardisation is not None for head in model.exits.values()]),
            fold_standardisation(model),
        ),
    )
    section = CostEffSection(heads=2, ffn=6, rank=8, teacher=teacher)
    exits = ExitTraining(pooling="mean", standardise=True)
    given = job(workshop, "C", seeing / "O", own_settings=section, exits=exits)
    train(given, tmp_path / "C", state_root=tmp_path / "s")
    assert len(seen) == stages
    assert seen[0] == [True, True, True, False]
    assert not any(any(heads) for heads in seen[1:])


def test_a_last_batch_of_one_trains(workshop, seeing, tmp_path):
    data = write_examples(tmp_path / "odd.parquet", rows=17)
    exits = ExitTraining(pooling="mean", standardise=True)
    train(job(workshop, "E", seeing / "O", data=data, exits=exits), tmp_path / "E", state_root=tmp_path / "s")
    weights = load_file(tmp_path / "E/model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.parametrize(
    ("operator", "parent", "exits", "message"),
    [
        (
            "E",
            "O",
            {"pooling": "mean"},
            "model.pooling: mean, but .*O was trained with first; set it to first",
        ),
        (
            "D",
            "E",
            {"standardise": True},
            "exits.standardise: true, but .*E was not trained so; set it to fal",
        ),
        (
            "P",
            "E",
            {"standardise": True},
            "exits.standardise: true, but .*E was not trained so; set it to fal",
        ),
        (
            "D",
            "seeing/E",
            {"pooling": "mean"},
            "exits.standardise: false, but .*E was trained so; set it to t",
        ),
        (
            "E",
            "seeing/O",
            {},
            "model.pooling: first, but .*O was trained with mean; set it to mean, or train",
        ),
    ],
)
def test_exits_that_the_parent_contradicts_are_refused(
    trained, seeing, workshop, tmp_path, operator, parent, exits, message
):
    wrong = job(workshop, operator, workshop / parent, exits=ExitTraining(**exits))
    with pytest.raises(PipeOpsError, match=message) as error:
        train(wrong, tmp_path / "out", state_root=tmp_path / "state")
    assert "\n" not in str(error.value)


@pytest.fixture
def without_dropout(workshop, tmp_path):
    """A job whose result does not depend on how a batch is divided, but for rounding."""
    backbone = tmp_path / "without-dropout"
    stop_dropping_out(shutil.copytree(workshop / "base", backbone))
    changes = {"learning_rate": 1e-3, "weight_decay": 0.0, "precision": "fp32"}
    settings = SETTINGS.model_copy(update=changes)
    return job(workshop, backbone=backbone, settings=settings)


def out_of_memory_above(rows, monkeypatch):
    """A GPU that holds so many examples at a time."""
    forward = MultiExitForSequenceClassification.forward

    def limited(self, input_ids, *arguments, **others):
        if self.training and len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids, *arguments, **others)

    monkeypatch.setattr(MultiExitForSequenceClassification, "forward", limited)


def test_out_of_memory_is_tried_once_more_in_two_parts(without_dropout, tmp_path, monkeypatch, capfd):
    plain = without_dropout
    train(plain, tmp_path / "whole", state_root=tmp_path / "s")
    capfd.readouterr()
    out_of_memory_above(4, monkeypatch)
    train(plain, tmp_path / "parts", state_root=tmp_path / "s")
    assert "out of GPU memory: again, with half the examples at a time" in capfd.readouterr().err
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    out_of_memory_above(3, monkeypatch)
    with pytest.raises(PipeOpsError, match="the GPU's memory does not hold 4 examples; lower training.batch"):
        train(plain, tmp_path / "no", state_root=tmp_path / "s")


@pytest.mark.parametrize("operator", ["E", "D", "C"])
def test_a_compiled_training_ends_with_the_same_weights(without_dropout, tmp_path, operator):
    # In one step: a second would be chosen by what the first left, where rounding may decide between equals.
    plain = without_dropout
    own = CostEffSection(heads=2, ffn=6, rank=8, schedule="one-shot") if operator == "C" else NoSettings()
    train(plain, tmp_path / "O", state_root=tmp_path / "s")
    for name, compiled in (("eager", False), ("compiled", True)):
        changed = replace(
            plain, operator=operator, parent=tmp_path / "O", own_settings=own, compiled=compiled
        )
        train(changed, tmp_path / name, state_root=tmp_path / "s")
    assert same_weights(tmp_path / "eager", tmp_path / "compiled")


def test_standardised_exits_can_be_compiled(without_dropout, workshop, seeing, tmp_path):
    """The folded weights hold 1 / deviation, which magnifies rounding, so answers are compared."""
    exits = ExitTraining(pooling="mean", standardise=True)
    plain = replace(without_dropout, operator="E", parent=seeing / "O", exits=exits)
    split = load_tokenised(workshop / "train.parquet")
    ids, mask = map(torch.from_numpy, pad(split.input_ids, pad_token_id=split.pad_token_id))
    answers = []
    for name, compiled in (("eager", False), ("compiled", True)):
        train(replace(plain, compiled=compiled), tmp_path / name, state_root=tmp_path / "s")
        answers.append(torch.stack(load_model(tmp_path / name).eval()(ids, mask).exit_logits))
    torch.testing.assert_close(*answers, atol=2e-2, rtol=0)


def test_a_teacher_computes_in_the_precision_of_its_student(trained, workshop, tmp_path, monkeypatch):
    seen = []

    def teacher_outputs(teacher, batch):
        seen.append(original(teacher, batch))
        return seen[-1]

    original = base.teacher_outputs
    monkeypatch.setattr(base, "teacher_outputs", teacher_outputs)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        settings = SETTINGS.model_copy(update={"precision": precision})
        parent = trained["O"]
        train(job(workshop, "D", parent, settings=settings), tmp_path / precision, state_root=tmp_path / "s")
        assert seen.pop().exit_logits[-1].dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("precision", "max_length", "flash"), [("bf16", 128, False), ("bf16", 512, True), ("fp32", 40, True)]
)
def test_short_inputs_in_bf16_are_trained_without_flash_attention(precision, max_length, flash):
    before = torch.backends.cuda.flash_sdp_enabled()
    with fast_attention(precision, max_length=max_length):
        assert torch.backends.cuda.flash_sdp_enabled() == flash
    assert torch.backends.cuda.flash_sdp_enabled() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_pytorch_cannot_use_is_refused(workshop, tmp_path):
    with pytest.raises(PipeOpsError, match="training.device: a GPU is asked for and PyTorch finds none"):
        train(job(workshop, device="gpu"), tmp_path / "O", state_root=tmp_path / "s")


def test_compiling_without_a_compiler_is_refused(workshop, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(PipeOpsError, match=r"training.compiled: no C\+\+ compiler is found; install g\+\+"):
        train(job(workshop, compiled=True), tmp_path / "O", state_root=tmp_path / "s")


KILLED = """
import os, sys
from pipeops.cli import main
from pipeops.training.trainer import ReproducibleTrainer

save = ReproducibleTrainer._save_checkpoint

def save_and_die(self, *arguments, **named):
    save(self, *arguments, **named)
    self.accelerator.wait_for_everyone()
    if self.state.global_step == 9:
        os._exit(9)

ReproducibleTrainer._save_checkpoint = save_and_die
main()
"""


def test_two_processes_train_one_model(without_dropout, tmp_path):
    """And resume in the middle of the second epoch, of 6 steps. Started twice, they train it once."""
    settings = without_dropout.settings.model_copy(update={"epochs": 3.0, "checkpoint_every": 1 / 6})
    plain = replace(without_dropout, settings=settings)
    train(plain, tmp_path / "one", state_root=tmp_path / "s")
    options = ["--processes", "2", *training_command(plain, tmp_path / "two", tmp_path / "s2")[5:]]
    (tmp_path / "killed.py").write_text(KILLED)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    killed = [sys.executable, *torchrun, str(tmp_path / "killed.py"), "train", "O", *options]
    assert subprocess.run(killed, capture_output=True, check=False).returncode
    command = [sys.executable, "-m", "pipeops", "train", "O", *options]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(run.communicate()[1] for run in runs)
    assert [run.returncode for run in runs] == [0, 0], said[-2000:]
    assert said.count("resuming at checkpoint-9") == 2  # both processes of one run
    assert f"{tmp_path / 'two'}: it is trained" in said
    assert same_weights(tmp_path / "one", tmp_path / "two")
    assert not list((tmp_path / "s2").iterdir())


def test_two_processes_standardise_what_they_share(without_dropout, workshop, tmp_path):
    """With the statistics of its own examples alone, each would answer otherwise, by up to 0.07."""
    exits = ExitTraining(standardise=True)
    train(without_dropout, tmp_path / "O", state_root=tmp_path / "s")
    plain = replace(without_dropout, operator="E", parent=tmp_path / "O", exits=exits)
    train(plain, tmp_path / "one", state_root=tmp_path / "s")
    command = training_command(plain, tmp_path / "two", tmp_path / "s2")
    run = subprocess.run([*command, "--processes", "2"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    split = load_tokenised(workshop / "train.parquet")
    ids, mask = map(torch.from_numpy, pad(split.input_ids, pad_token_id=split.pad_token_id))
    answers = [torch.stack(load_model(tmp_path / n).eval()(ids, mask).exit_logits) for n in ("one", "two")]
    torch.testing.assert_close(*answers, atol=2e-2, rtol=0)


def test_a_full_disk_is_one_line_and_loses_nothing(trained, workshop, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (it takes root)")
    try:
        filler = disk / "filler"
        filler.write_bytes(bytes(1_950_000))
        with pytest.raises(PipeOpsError, match=f"no space left on the disk of {disk}.*free some"):
            train(job(workshop), tmp_path / "O", state_root=disk)
        assert not (tmp_path / "O/model.safetensors").exists()
        filler.unlink()
        train(job(workshop), tmp_path / "O", state_root=disk)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    expected = (trained["O"] / "model.safetensors").read_bytes()
    assert (tmp_path / "O/model.safetensors").read_bytes() == expected


def test_a_checkpoint_that_was_cut_off_is_not_resumed_from(tmp_path):
    for step, complete in [(5, True), (10, False)]:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
        if complete:
            seal(folder)
    assert last_checkpoint(tmp_path).name == "checkpoint-5"
    assert not (tmp_path / "checkpoint-10").exists()
    assert last_checkpoint(tmp_path / "absent") is None


def test_a_truncated_parent_is_named(trained, workshop, tmp_path):
    broken = tmp_path / "O"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).write_bytes((workshop / "O" / name).read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(PipeOpsError, match=r"O/model.safetensors: damaged .* train the model again") as error:
        train(job(workshop, "E", broken), tmp_path / "E", state_root=tmp_path / "state")
    assert "\n" not in str(error.value)


def test_distillation_learns_from_a_named_student(workshop, tmp_path, trained):
    write_backbone(tmp_path / "student", layers=3)
    train(
        job(workshop, "D", workshop / "E", inputs={"student": tmp_path / "student"}),
        tmp_path / "D",
        state_root=tmp_path / "s",
    )
    assert load_model(tmp_path / "D").config.exit_layers == [1, 2, 3]


def test_a_student_of_another_width_is_refused(workshop, tmp_path, trained):
    write_backbone(tmp_path / "student", hidden_size=8)
    wrong = job(workshop, "D", workshop / "O", inputs={"student": tmp_path / "student"})
    with pytest.raises(PipeOpsError, match="hidden size 8 differs from the teacher's 16"):
        train(wrong, tmp_path / "D", state_root=tmp_path / "state")


def test_an_alternate_student_needs_two_layers(workshop, tmp_path):
    write_backbone(tmp_path / "shallow", layers=1)
    shallow = job(workshop, backbone=tmp_path / "shallow")
    train(shallow, tmp_path / "O", state_root=tmp_path / "state")
    with pytest.raises(PipeOpsError, match="'alternate' needs a backbone of at least two layers"):
        train(
            replace(shallow, operator="D", parent=tmp_path / "O"),
            tmp_path / "D",
            state_root=tmp_path / "state",
        )


def test_weights_are_readable_by_others(trained):
    mode = (trained["O"] / "model.safetensors").stat().st_mode
    assert mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_order_that_no_pipeline_has_is_refused(trained, workshop, tmp_path):
    for operator, parent, message in [
        ("C", "P", "C cannot come after {}: C replaces D, P and E"),
        ("C", "D", "C cannot come after {}: C replaces D, P and E"),
        ("C", "E", "C cannot come after {}: C replaces D, P and E"),
        ("E", "C", "E cannot come after C: C replaces"),
        ("D", "C", "D cannot come after C: C replaces"),
        ("E", "E", "E occurs twice"),
        ("D", "P", "D cannot come after P: a new student throws the pruning away"),
    ]:
        with pytest.raises(PipeOpsError, match=message.format(parent)):
            train(job(workshop, operator, trained[parent]), tmp_path / "out", state_root=tmp_path / "state")


def test_an_operator_that_cannot_be_applied_is_refused(workshop, tmp_path):
    for operator, parent, message in [
        ("X", None, "operator 'X' cannot be trained; known are O, V, D, P, E, C"),
        ("D", None, "operator D needs the parent"),
        ("O", workshop / "base", "operator O has no parent"),
    ]:
        with pytest.raises(PipeOpsError, match=message):
            train(job(workshop, operator, parent), tmp_path / "out", state_root=tmp_path / "state")


def test_a_given_classifier_is_o_without_training_and_is_measured_first(workshop, tmp_path, capsys):
    source = write_classifier(tmp_path / "source", "roberta", names={0: "YES", 1: "no"})
    validation = write_examples(tmp_path / "validation.parquet", seed=1)
    given = {"classifier": source, "validation": validation}
    train(job(workshop, inputs=given), tmp_path / "O", state_root=tmp_path / "state")
    ours, theirs = load_model(tmp_path / "O"), as_original(source, sep_token_id=2, labels=["no", "yes"])
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in ours.state_dict().items())
    assert ours.config.pipeline == "O"
    split = load_tokenised(validation)
    answers = [int(ours(torch.tensor(ids[None])).logits.argmax()) for ids in split.input_ids]
    right = sum(said == label for said, label in zip(answers, split.label_ids, strict=True))
    log = json.loads((tmp_path / "O/training.json").read_text())["log"]
    examples = {"examples": len(split), "split": "validation"}
    assert log == [{"stage": "taking", "accuracy": right / len(split)} | examples]
    assert f"O as it is given: {right / len(split):.1%} of 48 validation examples" in capsys.readouterr().out
    train(job(workshop, "E", tmp_path / "O"), tmp_path / "E", state_root=tmp_path / "state")
    assert load_model(tmp_path / "E").config.exit_layers == [1, 2, 3, 4]
    pooled = replace(job(workshop, inputs=given), exits=ExitTraining(pooling="mean"))
    with pytest.raises(PipeOpsError, match="model.pooling: mean, but a classifier sees the first token"):
        train(pooled, tmp_path / "mean", state_root=tmp_path / "state")
