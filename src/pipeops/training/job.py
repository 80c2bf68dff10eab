"""Training one node of the DAG: an operator applied to its parent, by Hugging Face's Trainer."""

import gc
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from pipeops import revisions
from pipeops.data.tokenised import TokenisedSplit, load_tokenised, pad
from pipeops.errors import PipeOpsError
from pipeops.files import disk_full_in_one_line, make_shareable
from pipeops.hardware import compute_dtype, device_name
from pipeops.models.architectures import architecture
from pipeops.models.backbones import WEIGHTS, load_tokenizer
from pipeops.models.multi_exit import (
    MultiExitForSequenceClassification,
    MultiExitOutput,
    fold_standardisation,
)
from pipeops.models.shape import ModelShape
from pipeops.operators import STAGES, Context, Stage
from pipeops.operators.base import Finished, Loss
from pipeops.operators.gradient_equilibrium import gradient_equilibrium
from pipeops.provenance import provenance, write_json
from pipeops.settings import (
    CostEffSection,
    Device,
    ExitTraining,
    Precision,
    PruningSection,
    TrainingSettings,
)
from pipeops.training.trainer import ReproducibleTrainer, trainer_arguments

CHECKPOINT_COMPLETE = "trainer_state.json"
"""The last file that Trainer writes into a checkpoint."""
FINISHED, LOG = "finished", "log.json"
"""Folder of a stage's model within its state, and what was logged, within that."""
LENGTH_BUCKET = 32
"""Batches of a compiled model are padded to multiples of so many tokens, so that few shapes are compiled."""
SHORT_INPUTS = 128
"""Tokens up to which a CPU is faster in bf16 without flash attention."""
RESUME = (
    "free some, or set keep_checkpoints: false, and run again: it resumes at the last complete checkpoint"
)
"""What to do about a full disk."""
_SAMPLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    operator: str
    """Letter of the operator that is applied: O, D, P, E or C."""
    parent: Path | None
    """Checkpoint that it is applied to; None for O."""
    backbone: Path
    """Folder of the pretrained encoder (and of the tokenizer)."""
    student: Path | None
    """Folder of D's pretrained student; None: every second layer of ``backbone``."""
    data: Path
    """Tokenised training examples."""
    importance_data: Path | None
    """Tokenised examples over which P accumulates importance; None: the training examples."""
    seed: int
    settings: TrainingSettings
    pruning: PruningSection
    """Settings of P."""
    costeff: CostEffSection
    """Settings of C."""
    exits: ExitTraining = field(default_factory=ExitTraining)
    """What classifiers see, and how the losses of several are joined; pooling must be the parent's."""
    device: Device = "auto"
    """``gpu`` refuses to train without one."""
    compiled: bool = False
    """Whether the model is compiled; it changes the speed, and results by rounding only."""


def train(job: Job, output: Path, *, state_root: Path) -> None:
    """Train and write the checkpoint (``config.json``, ``model.safetensors``, tokenizer, ``training.json``).

    A run that was interrupted continues at the last saved step of the stage that it was in.

    Args:
        job: what to train.
        output: folder of the checkpoint.
        state_root: where the state to resume from is kept, in a folder named by a hash of everything that
            the result depends on; removed on success. It must not lie within ``output``.

    Raises:
        PipeOpsError: the parent's checkpoint cannot be read, or the operator cannot be applied.
    """
    if job.operator not in STAGES:
        raise PipeOpsError(f"operator '{job.operator}' cannot be trained; known are {', '.join(STAGES)}")
    if (job.parent is None) != (job.operator == "O"):
        problem = "has no parent" if job.parent else "needs the parent that it is applied to"
        raise PipeOpsError(f"operator {job.operator} {problem}: see --parent")
    if job.parent is not None:
        _refuse_order(job.operator, job.parent, job.backbone)
        _refuse_other_exits(job.exits, job.parent)
    if job.compiled and not _has_compiler():
        raise PipeOpsError("training.compiled: no C++ compiler is found; install g++, or set it to false")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    device = _prepared_device(job)
    split = load_tokenised(job.data)
    state = state_root / _fingerprint(job)
    context = Context(
        parent=load_model(job.parent).to(device) if job.parent else None,
        backbone=job.backbone,
        student=job.student,
        labels=split.labels,
        sep_token_id=split.sep_token_id,
        pruning=job.pruning,
        costeff=job.costeff,
        exits=job.exits,
        importance_batches=lambda examples: _batches(
            load_tokenised(job.importance_data) if job.importance_data else split,
            examples=examples,
            batch_size=job.settings.batch_size,
            device=device,
        ),
    )
    stages = STAGES[job.operator](context)

    def finished(name: str) -> MultiExitForSequenceClassification:
        return load_model(state / name / FINISHED).to(device)

    for number, stage in enumerate(stages, start=1):
        folder = state / stage.name
        if (folder / FINISHED / WEIGHTS).exists():
            continue
        if len(stages) > 1:
            print(f"stage {number} of {len(stages)}: {stage.name}", flush=True)
        with disk_full_in_one_line(folder, advice=RESUME):
            _train_stage(job, stage, finished, split, folder)
    if _is_first_process():
        log = [
            row for stage in stages for row in json.loads((state / stage.name / FINISHED / LOG).read_text())
        ]
        with disk_full_in_one_line(output, advice=RESUME):
            _save(state / stages[-1].name / FINISHED, log, job, output)
        shutil.rmtree(state, ignore_errors=True)


def _refuse_order(operator: str, parent: Path, backbone: Path) -> None:
    """Refuse what no pipeline may be, where it can be seen in the parent's shape."""
    shape, original = ModelShape.from_checkpoint(parent), architecture(str(backbone))
    if operator == "C" and original is not None:
        whole = (original.heads,) * original.layers, (original.ffn_size,) * original.layers
        plain = (shape.heads_per_layer, shape.ffn_per_layer) == whole
        if shape.has_exits or shape.embedding_rank or not plain:
            raise PipeOpsError(f"operator C replaces D, P and E, so it takes O; {parent} is another model")
    elif shape.embedding_rank:
        raise PipeOpsError(f"operator {operator} cannot come after C, which replaces it; {parent} is C's")


def _refuse_other_exits(exits: ExitTraining, parent: Path) -> None:
    """Refuse a parent whose classifiers saw something else than those that are to be trained."""
    shape = ModelShape.from_checkpoint(parent)
    if shape.pooling != exits.pooling:
        raise PipeOpsError(
            f"model.pooling: {exits.pooling}, but {parent} was trained with {shape.pooling}; "
            f"set it to {shape.pooling}, or train the parent anew"
        )
    config = json.loads((parent / "config.json").read_text())
    if shape.has_exits and (standardised := config.get("exits_standardised", False)) != exits.standardise:
        was = "was" if standardised else "was not"
        raise PipeOpsError(
            f"exits.standardise: {str(exits.standardise).lower()}, but {parent} {was} trained so; "
            f"set it to {str(standardised).lower()}, or train the parent anew"
        )


def _train_stage(job: Job, stage: Stage, finished: Finished, split: TokenisedSplit, folder: Path) -> None:
    """Train one stage and put its model and log into ``folder / FINISHED``.

    A GPU that is too small gets half the examples at a time, and two such parts make a step.
    """
    trainer = _trained(job, stage, finished, split, folder, parts=1)
    if trainer is None:
        print("out of GPU memory: again, with half the examples at a time in the same batches", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
        trainer = _trained(job, stage, finished, split, folder, parts=2)
    if trainer is None:
        raise PipeOpsError(
            f"the GPU's memory does not hold {job.settings.batch_size // 2} examples; lower "
            "training.batch_size, or let fewer trainings share it (training.gpu_slots)"
        )
    if _is_first_process():
        with _written_last(folder / FINISHED) as temporary:
            fold_standardisation(trainer.model)
            trainer.model.save_pretrained(temporary)
            write_json(temporary / LOG, [{"stage": stage.name} | row for row in trainer.state.log_history])
        for leftover in folder.glob("checkpoint-*"):
            shutil.rmtree(leftover)
    trainer.accelerator.wait_for_everyone()


def _trained(
    job: Job, stage: Stage, finished: Finished, split: TokenisedSplit, folder: Path, *, parts: int
) -> "OperatorTrainer | None":
    """Run one stage's training, a step in so many parts; None where the GPU's memory does not suffice."""
    set_seed(job.seed)
    if job.compiled:
        # Or what was compiled for another stage is taken for this one, without its hooks.
        torch.compiler.reset()
    trainee = stage.prepare(finished)
    trainer = OperatorTrainer(
        loss=trainee.loss,
        model=trainee.model,
        lengths=[len(ids) for ids in split.input_ids],
        length_grouped=job.settings.length_grouped,
        step_size=job.settings.batch_size,
        args=_arguments(job, stage, folder, examples=len(split), parts=parts),
        train_dataset=Examples(split),
        data_collator=Collator(
            split.pad_token_id,
            multiple_of=LENGTH_BUCKET if job.compiled else 1,
            longest=split.max_length,
        ),
    )
    checkpoint = last_checkpoint(folder)
    if checkpoint:
        print(f"resuming at {checkpoint.name}", flush=True)
    try:
        balanced = gradient_equilibrium(trainee.model) if trainee.equilibrium else nullcontext()
        with balanced, fast_attention(job.settings.precision, max_length=split.max_length):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError:
        return None
    return trainer


def fast_attention(precision: Precision, *, max_length: int) -> AbstractContextManager[None]:
    """While open, attention is computed the way that trains fastest on this machine.

    On a CPU, PyTorch's flash attention in bf16 is slow backwards where inputs are short: up to 7 of the 10 ms
    that a layer of the built-in backbone takes. From about 256 tokens on it is the faster one.
    """
    short = max_length <= SHORT_INPUTS
    if short and not torch.cuda.is_available() and compute_dtype(precision) == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


class OperatorTrainer(ReproducibleTrainer):
    """Trainer with the loss of a :class:`pipeops.operators.Trainee`."""

    def __init__(self, *, loss: Loss, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.loss = loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - Trainer's signature
    ) -> Tensor | tuple[Tensor, MultiExitOutput]:
        """The loss of the operator's stage."""
        outputs = model(**inputs)
        # Accelerate wraps the trained model only; a teacher must not be slower than its student.
        with self.accelerator.autocast():
            loss = self.loss(outputs, inputs, self.state.global_step / self.state.max_steps)
        return (loss, outputs) if return_outputs else loss


class Examples(Dataset):
    """Tokenised examples as Trainer wants them."""

    def __init__(self, split: TokenisedSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.split.input_ids[index], "label": int(self.split.label_ids[index])}


@dataclass(frozen=True)
class Collator:
    """Pads a batch to its longest example, or a little further."""

    pad_token_id: int
    multiple_of: int = 1
    """Lengths are rounded up to a multiple of this,"""
    longest: int | None = None
    """but not beyond this."""

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Stack examples into ``input_ids``, ``attention_mask`` (batch, length) and ``labels`` (batch,)."""
        sequences = [example["input_ids"] for example in examples]
        length = -(-max(map(len, sequences)) // self.multiple_of) * self.multiple_of
        if self.longest is not None:
            length = min(length, self.longest)
        ids, mask = pad(sequences, pad_token_id=self.pad_token_id, length=length)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.tensor([example["label"] for example in examples]),
        }


def load_model(folder: Path) -> MultiExitForSequenceClassification:
    """Load a trained checkpoint, in float32.

    Raises:
        PipeOpsError: its weights are missing or damaged.
    """
    try:
        return MultiExitForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PipeOpsError(
            f"{folder / WEIGHTS}: not readable ({reason}); delete {folder} and run again to train it anew"
        ) from None


def last_checkpoint(state: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a kill cut off is removed."""
    complete = {}
    for folder in state.glob("checkpoint-*"):
        if (folder / CHECKPOINT_COMPLETE).exists():
            complete[int(folder.name.removeprefix("checkpoint-"))] = folder
        else:
            shutil.rmtree(folder)
    return complete[max(complete)] if complete else None


def _arguments(job: Job, stage: Stage, folder: Path, *, examples: int, parts: int) -> TrainingArguments:
    """Trainer's arguments; a step's batch is dealt to all processes, and to each in so many parts."""
    settings = job.settings
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch_size % (processes * parts):
        raise PipeOpsError(
            f"training.batch_size: {settings.batch_size} cannot be dealt to {processes} processes in {parts} "
            f"parts; make it a multiple of {processes * parts}"
        )
    epochs = settings.epochs * stage.epochs
    steps = round(-(-examples // settings.batch_size) * epochs)
    return trainer_arguments(
        folder,
        epochs=epochs,
        batch_size=settings.batch_size // (processes * parts),
        gradient_accumulation_steps=parts,
        # C's exits have no gradient while only hidden states are learned.
        ddp_find_unused_parameters=True if processes > 1 else None,
        learning_rate=settings.learning_rate * stage.learning_rate,
        seed=job.seed,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=compute_dtype(settings.precision) == "bf16",
        torch_compile=job.compiled,
        torch_compile_mode=_compile_mode() if job.compiled else None,
        save_strategy="steps",
        save_steps=max(1, round(steps * settings.checkpoint_every)),
        save_total_limit=1,
        logging_steps=max(1, round(steps / 10)),
    )


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name)


def _compile_mode() -> str:
    """How a model is compiled here: on a GPU with CUDA graphs, as small batches wait for kernels to start."""
    return "reduce-overhead" if torch.cuda.is_available() else "default"


def _prepared_device(job: Job) -> torch.device:
    """The CPU with its threads, or this process's GPU."""
    if not torch.cuda.is_available():
        if job.device == "gpu":
            raise PipeOpsError(
                "training.device: a GPU is asked for and PyTorch finds none that it can use; see what "
                "nvidia-smi says and which build of torch is installed, or set it to auto or cpu"
            )
        torch.set_num_threads(job.settings.threads)
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")  # TF32 where a product is not in bf16
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _is_first_process() -> bool:
    """Whether this process writes the results; of several that train one model, one does."""
    return os.environ.get("RANK", "0") == "0"


def _batches(
    split: TokenisedSplit, *, examples: int | None, batch_size: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Some examples (None: all) once, in an order that pads little; importance is a sum."""
    drawn = np.random.default_rng(_SAMPLE_SEED).permutation(len(split))[:examples].tolist()
    order = sorted(drawn, key=lambda index: len(split.input_ids[index]))
    rows, collate = Examples(split), Collator(split.pad_token_id)
    for start in range(0, len(order), batch_size):
        batch = collate([rows[index] for index in order[start : start + batch_size]])
        yield {name: tensor.to(device) for name, tensor in batch.items()}


def _fingerprint(job: Job) -> str:
    """Hash of everything that the result depends on."""
    described: dict[str, Any] = {
        "operator": job.operator,
        "revision": revisions.OPERATOR[job.operator],
        "seed": job.seed,
        "settings": job.settings.model_dump(),
        "exits": job.exits.model_dump(),
        **_operator_settings(job),
        "data": _digest(job.data),
        "importance_data": _digest(job.importance_data) if job.importance_data else None,
    }
    for name in ("parent", "backbone", "student"):
        folder = getattr(job, name)
        described[name] = _digest(folder / WEIGHTS) if folder else None
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise PipeOpsError(f"{path}: not found; run the workflow to make it") from None


def _save(finished: Path, log: list[dict[str, Any]], job: Job, output: Path) -> None:
    """Write the checkpoint of the last stage, the tokenizer and the record."""
    with _written_last(output) as folder:
        load_tokenizer(job.backbone).save_pretrained(folder)
        for name in ("config.json", WEIGHTS):
            shutil.copy(finished / name, folder / name)
        record = provenance(
            operator=job.operator,
            seed=job.seed,
            settings=job.settings.model_dump(),
            exits=job.exits.model_dump(),
            **_operator_settings(job),
            threads=torch.get_num_threads(),
            device=device_name(),
        )
        write_json(folder / "training.json", record | {"log": log})


def _operator_settings(job: Job) -> dict[str, Any]:
    """The section of the configuration that only this operator has."""
    sections = {"P": ("pruning", job.pruning), "C": ("costeff", job.costeff)}
    if job.operator not in sections:
        return {}
    name, section = sections[job.operator]
    return {name: section.model_dump()}


@contextmanager
def _written_last(output: Path) -> Iterator[Path]:
    """Yield a folder beside ``output`` to write into, then move its files in; the weights come last."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        folder = Path(temporary)
        yield folder
        make_shareable(folder / WEIGHTS)
        files = sorted(folder.iterdir(), key=lambda path: path.name == WEIGHTS)
        for path in files:
            path.replace(output / path.name)
