"""Hugging Face's Trainer as every training here uses it."""

import math
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from pipeops.errors import PipeOpsError, Terminated
from pipeops.files import disk_full_in_one_line
from pipeops.hardware import compute_dtype
from pipeops.integrity import seal
from pipeops.progress import Progress, duration
from pipeops.reading import reason
from pipeops.settings import Precision
from pipeops.training.sampling import EpochSampler

SHORT_INPUTS = 128
"""Tokens up to which a CPU is faster in bf16 without flash attention."""


def trainer_arguments(
    folder: Path, *, epochs: float, batch_size: int, learning_rate: float, seed: int, **others: Any
) -> TrainingArguments:
    """What all trainings share: AdamW, a linear schedule, one seed, no reports but the log.

    Args:
        folder: where checkpoints go.
        epochs: passes over the examples.
        batch_size: examples per step.
        learning_rate: its peak.
        seed: of weights that are new, of dropout, and of the order of the examples.
        others: further arguments of ``TrainingArguments``.
    """
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        report_to="none",
        # To look for a loss that is no number makes a GPU wait at every step; `FiniteLoss` looks in the log.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        **others,
    )


def fast_attention(precision: Precision, *, max_length: int) -> AbstractContextManager[None]:
    """While open, attention is computed the way that trains fastest on this machine.

    On a CPU, PyTorch's flash attention in bf16 is slow backwards where inputs are short: up to 7 of the 10 ms
    that a layer of the built-in backbone takes. From about 256 tokens on it is the faster one.
    """
    short = max_length <= SHORT_INPUTS
    if short and not torch.cuda.is_available() and compute_dtype(precision) == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


class ShownProgress(TrainerCallback):
    """Shows on standard error how far a training is, and a line with the loss whenever Trainer logs it."""

    def __init__(self) -> None:
        self._shown: Progress | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Begin at the step that an interrupted training resumes from; one of several processes shows."""
        if state.is_world_process_zero:
            self._shown = Progress("train", state.max_steps, done=state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Count the step."""
        if self._shown is not None:
            self._shown.reach(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: Any, **named: Any) -> None:  # noqa: ARG002
        """Say what Trainer logs."""
        stopped = control.should_training_stop and state.global_step < state.max_steps
        if self._shown is not None and not stopped:
            self._shown.say(log_line(named["logs"], state.global_step, state.max_steps))

    def close(self) -> None:
        """Remove the bar."""
        if self._shown is not None:
            self._shown.close()


class FiniteLoss(TrainerCallback):
    """Stops a training whose loss is infinite or no number, when it is logged: there no GPU waits for it."""

    def on_log(self, args: Any, state: TrainerState, control: Any, **named: Any) -> None:  # noqa: ARG002
        """Look at the mean loss since the last log, or at the end at that of all steps."""
        for name in ("loss", "train_loss"):
            if not math.isfinite(value := named["logs"].get(name, 0.0)):
                raise diverged(f"the loss is {value}", args, state)


def diverged(what: str, args: TrainingArguments, state: TrainerState) -> PipeOpsError:
    """What to say of a training that leads nowhere."""
    return PipeOpsError(
        f"step {state.global_step:,} of {state.max_steps:,}: {what}, at a peak learning rate of "
        f"{args.learning_rate:g}; lower learning_rate"
    )


class WithoutWalks(TrainerCallback):
    """Keeps Trainer from walking over all modules at every step: so long a GPU would idle.

    It tells all of them that they train, which they do already, and looks for weights to forget gradients.
    """

    def __init__(self, trainer: "ReproducibleTrainer") -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Give the model, wrapped as it is trained, methods of its own."""
        model: torch.nn.Module = self._trainer.model_wrapped
        weights = self._trainer.weights

        def train(mode: bool = True) -> torch.nn.Module:
            return model if model.training == mode else type(model).train(model, mode)

        def zero_grad(set_to_none: bool = True) -> None:  # noqa: ARG001 - PyTorch's signature and default
            for weight in weights:
                weight.grad = None

        model.__dict__.update(train=train, zero_grad=zero_grad)

    def close(self) -> None:
        """Give back those of its class."""
        for name in ("train", "zero_grad"):
            self._trainer.model_wrapped.__dict__.pop(name, None)


class EpochOfExamples(TrainerCallback):
    """Tells the sampler which epoch begins: several processes that resume hide it from Trainer."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """An epoch that is resumed begins in its middle."""
        self._sampler.set_epoch(state.global_step // self._sampler.batches)


class Termination(TrainerCallback):
    """Lets a training that is asked to end (SIGTERM) end with the step that it is in, and save there."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Save and stop, if so asked."""
        if self.asked:
            control.should_save = control.should_training_stop = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While open, the signal is noted only. Of several processes each would end at another step."""
        if "RANK" in os.environ:
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _note(self, *_: Any) -> None:
        self.asked = True


def log_line(logs: Mapping[str, float], step: int, steps: int) -> str:
    """What Trainer logs, as a line for people: the losses since the last one, or at the end of all steps."""
    if "train_runtime" in logs:
        return f"trained in {duration(logs['train_runtime'])}, mean loss {logs['train_loss']:.4g}"
    named = {"loss": "loss", "learning_rate": "learning rate", "grad_norm": "gradient norm", "epoch": "epoch"}
    values = [f"{name} {logs[key]:.4g}" for key, name in named.items() if key in logs]
    return f"step {step:,} of {steps:,}: {', '.join(values)}"


class ReproducibleTrainer(Trainer):
    """Trainer whose examples come in the order of :class:`pipeops.training.sampling.EpochSampler`."""

    def __init__(
        self, *, lengths: Sequence[int], length_grouped: bool, step_size: int, **arguments: Any
    ) -> None:
        """Take Trainer's arguments, every example's length, and the number of examples of a step."""
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self.shown, self.termination, self.without_walks = ShownProgress(), Termination(), WithoutWalks(self)
        self.add_callback(self.shown)
        self.add_callback(self.without_walks)
        self.add_callback(FiniteLoss)
        self.add_callback(self.termination)
        self.sampler = EpochSampler(
            lengths,
            batch_size=step_size,
            grouped=length_grouped,
            seed=self.args.data_seed or self.args.seed,
        )
        self.add_callback(EpochOfExamples(self.sampler))

    def train(self, *arguments: Any, **named: Any) -> TrainOutput:
        """Train as Trainer does, and show how far it is; what is shown goes away after an error too.

        Raises:
            PipeOpsError: the loss or the weights became infinite or no number.
            Terminated: the process was asked to end. What it trained is saved.
        """
        resumable = self.args.save_strategy != "no"
        try:
            with self.termination.listening() if resumable else nullcontext():
                output = super().train(*arguments, **named)
        finally:
            self.shown.close()
            self.without_walks.close()
        if self.state.global_step < self.state.max_steps:
            step, steps = self.state.global_step, self.state.max_steps
            raise Terminated(f"saved at step {step:,} of {steps:,}; run again, and it resumes there")
        self._refuse_not_finite()
        return output

    def save_model(self, *arguments: Any, **named: Any) -> None:
        """Save as Trainer does, but no weights that nothing can go on from."""
        self._refuse_not_finite()
        super().save_model(*arguments, **named)

    def _refuse_not_finite(self) -> None:
        """Look at the weights: a step with a finite loss may have spoiled them."""
        finite = torch.stack([weight.isfinite().all() for weight in self.weights])
        if not finite.all().item():
            raise diverged("weights are infinite or no numbers", self.args, self.state)

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        """Save as Trainer does, then seal the folder, and remove older ones only when that is on the disk."""
        folder = Path(self.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        try:
            with disk_full_in_one_line(folder):
                super()._save_checkpoint(*arguments, **named)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torch's writer of files hides what the system said
            said = reason(error)
            raise PipeOpsError(f"{folder}: not written ({said}); look at its disk and run again") from None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(folder)
            for older in folder.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                if older != folder:
                    shutil.rmtree(older)

    def _clip_grad_norm(self, model: torch.nn.Module) -> Tensor:  # noqa: ARG002
        """Clip as Trainer does, without the walks that look for weights that are sharded: none are."""
        return torch.nn.utils.clip_grad_norm_(self.weights, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """What Trainer logs, but its walk over all weights is made once and not at every step."""
        return 6 * inputs["input_ids"].numel() * self._counted_weights

    @cached_property
    def weights(self) -> list[torch.nn.Parameter]:
        """Those of the model, which stay the same objects however it is wrapped."""
        return list(self.model.parameters())

    @cached_property
    def _counted_weights(self) -> int:
        return self.model.num_parameters(exclude_embeddings=True)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochSampler:  # noqa: ARG002
        return self.sampler
