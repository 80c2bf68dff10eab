"""Training one stage of an operator by Hugging Face's Trainer."""

import gc
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments, set_seed

from pipeops.data.tokenised import TokenisedSplit
from pipeops.errors import PipeOpsError, Terminated
from pipeops.hardware import compile_mode, compute_dtype
from pipeops.integrity import sealed_folder
from pipeops.models.backbones import WEIGHTS
from pipeops.models.multi_exit import (
    MultiExitForSequenceClassification,
    MultiExitOutput,
    fold_standardisation,
)
from pipeops.operators.base import Loss, Stage
from pipeops.operators.gradient_equilibrium import gradient_equilibrium
from pipeops.progress import say
from pipeops.provenance import json_text
from pipeops.reading import read_json
from pipeops.settings import TrainingSettings
from pipeops.training.batches import Collator, Examples
from pipeops.training.checkpoints import is_first_process, last_checkpoint, load_model, process_count, usable
from pipeops.training.trainer import ReproducibleTrainer, fast_attention, trainer_arguments

FINISHED, LOG = "finished", "log.json"
"""Folder of a finished stage's model within its state, and the name of the log in it."""
LENGTH_BUCKET = 32
"""Batches of a compiled model are padded to multiples of this many tokens: few shapes are compiled."""


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """The stages of one training, and what they share."""

    split: TokenisedSplit
    """Training examples."""
    settings: TrainingSettings
    seed: int
    compiled: bool
    """Whether the model is compiled."""
    device: torch.device
    state: Path
    """Folder that a training resumes from: one folder per stage."""

    def is_finished(self, stage: Stage) -> bool:
        """Whether the stage's model is there."""
        return usable(self.finished(stage.name))

    def finished(self, name: str) -> Path:
        """Folder of the model of a finished stage."""
        return self.state / name / FINISHED

    def log(self, name: str) -> list[dict[str, Any]]:
        """What Trainer logged of a finished stage."""
        again = f"delete {self.state} and run again"
        return read_json(self.finished(name) / LOG, absent=again, again=again)

    def load_stage(self, name: str) -> MultiExitForSequenceClassification:
        """Load the model of a finished stage; each call gives a new one."""
        return load_model(self.finished(name)).to(self.device)

    def train(self, stage: Stage) -> None:
        """Train one stage, or take it as it is, and put its model and log into its folder.

        A GPU that is too small gets half the examples at a time, and two such halves make a step. Not if
        several train together: the others would wait for the one whose memory is full.

        Raises:
            PipeOpsError: the GPU holds neither a batch nor half of it, or not the share of one of several.
        """
        folder = self.state / stage.name
        if not stage.trains:
            if is_first_process():
                taken = stage.prepare(self.load_stage)
                self._keep(stage, taken.model, [dict(taken.log)])
            return
        trainer, share = self._trained(stage, folder, accumulated=1), 1 / process_count()
        if trainer is None and process_count() == 1:
            say("out of GPU memory: again, with half the examples at a time in the same batches")
            gc.collect()
            torch.cuda.empty_cache()
            trainer, share = self._trained(stage, folder, accumulated=2), 1 / 2
        if trainer is None:
            raise self._too_large(share)
        if is_first_process():
            fold_standardisation(trainer.model)
            self._keep(stage, trainer.model, trainer.state.log_history)
            for leftover in folder.glob("checkpoint-*"):
                shutil.rmtree(leftover)
        trainer.accelerator.wait_for_everyone()
        if trainer.termination.asked:
            raise Terminated(f"{stage.name} is finished and saved; run again, and it goes on from there")

    def _too_large(self, share: float) -> PipeOpsError:
        return PipeOpsError(
            f"the GPU's memory does not hold {round(share * self.settings.batch_size)} examples; lower "
            "training.batch_size, or let fewer trainings share it (training.gpu_slots)"
        )

    def _keep(
        self, stage: Stage, model: MultiExitForSequenceClassification, log: Sequence[dict[str, Any]]
    ) -> None:
        """Write the model and log of a finished stage."""
        with sealed_folder(self.finished(stage.name), last=WEIGHTS) as folder:
            model.save_pretrained(folder)
            (folder / LOG).write_text(json_text([{"stage": stage.name} | row for row in log]))

    def _trained(self, stage: Stage, folder: Path, *, accumulated: int) -> "OperatorTrainer | None":
        """Run the training, ``accumulated`` batches to a step; None where the GPU's memory is too small."""
        set_seed(self.seed)
        if self.compiled:
            # Or what was compiled for another stage is taken for this one, without its hooks.
            torch.compiler.reset()
        try:
            trainee = stage.prepare(self.load_stage)
        except torch.OutOfMemoryError:  # whole batches say what is pruned
            raise self._too_large(1) from None
        trainer = OperatorTrainer(
            loss=trainee.loss,
            model=trainee.model,
            lengths=[len(ids) for ids in self.split.input_ids],
            length_grouped=self.settings.length_grouped,
            step_size=self.settings.batch_size,
            args=self._arguments(stage, folder, accumulated),
            train_dataset=Examples(self.split),
            data_collator=Collator(
                self.split.pad_token_id,
                multiple_of=LENGTH_BUCKET if self.compiled else 1,
                longest=self.split.max_length,
            ),
        )
        checkpoint = last_checkpoint(folder)
        if checkpoint:
            say(f"resuming at {checkpoint.name}")
        try:
            balanced = gradient_equilibrium(trainee.model) if trainee.equilibrium else nullcontext()
            with balanced, fast_attention(self.settings.precision, max_length=self.split.max_length):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError:
            return None
        return trainer

    def _arguments(self, stage: Stage, folder: Path, accumulated: int) -> TrainingArguments:
        """Trainer's arguments; a step's batch is dealt to all processes, and accumulated within each."""
        settings = self.settings
        processes = process_count()
        if settings.batch_size % (processes * accumulated):
            raise PipeOpsError(
                f"training.batch_size: {settings.batch_size} cannot be dealt to {processes} processes in "
                f"{accumulated} parts; make it a multiple of {processes * accumulated}"
            )
        epochs = settings.epochs * stage.epochs
        steps = round(-(-len(self.split) // settings.batch_size) * epochs)
        return trainer_arguments(
            folder,
            epochs=epochs,
            batch_size=settings.batch_size // (processes * accumulated),
            gradient_accumulation_steps=accumulated,
            # C's exits have no gradient while only hidden states are learned.
            ddp_find_unused_parameters=True if processes > 1 else None,
            learning_rate=settings.learning_rate * stage.learning_rate,
            seed=self.seed,
            warmup_steps=settings.warmup,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            bf16=compute_dtype(settings.precision) == "bf16",
            torch_compile=self.compiled,
            torch_compile_mode=compile_mode() if self.compiled else None,
            save_strategy="steps",
            save_steps=max(1, round(steps * settings.checkpoint_every)),
            logging_steps=max(1, round(steps / 10)),
        )


class OperatorTrainer(ReproducibleTrainer):
    """Trainer with the loss of a ``Trainee``."""

    def __init__(self, *, loss: Loss, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.loss = loss
        if self.args.torch_compile:
            run_once(self.model)

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


def run_once(model: MultiExitForSequenceClassification) -> None:
    """Run a model before it is compiled: transformers adds hooks at the first run, which cut the graph."""
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 1, dtype=torch.long, device=model.device))
