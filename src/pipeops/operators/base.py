"""What an operator's training function is given, and what it hands back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeops.models.multi_exit import (
    MultiExitForSequenceClassification,
    MultiExitOutput,
    standardise_exits,
    with_all_exits,
)
from pipeops.operators.losses import distillation_loss
from pipeops.settings import ExitLoss, ExitTraining

Loss = Callable[[MultiExitOutput, Mapping[str, Tensor], float], Tensor]
"""Loss of the trained model's output on a batch, when this fraction of the training is done."""
Finished = Callable[[str], MultiExitForSequenceClassification]
"""Loads the model of an earlier stage by the stage's name; each call gives a new one."""


class Batches(Protocol):
    """Batches over which importance is accumulated."""

    def __call__(self, examples: int | None, *, split: str = "") -> Iterable[Mapping[str, Tensor]]:
        """Yield keyword arguments of the model, labels included, on its device.

        Args:
            examples: how many, drawn once; None: all.
            split: name of the extra input that they come from; the training split where there is none.
        """


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything an operator may start from."""

    parent: MultiExitForSequenceClassification | None
    """The trained model that the operator is applied to, in evaluation mode; None for O."""
    backbone: Path
    """Folder of the pretrained encoder that O starts from."""
    labels: Sequence[str]
    """Class names in the order of their ids."""
    sep_token_id: int
    """The token that ends a segment."""
    settings: Any
    """The operator's own section of the configuration."""
    exits: ExitTraining
    """What classifiers see, and how the losses of several are joined."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Extra inputs that the operator declares, by name."""
    batches: Batches
    """Batches of labelled examples, for importance."""

    @property
    def teacher(self) -> MultiExitForSequenceClassification:
        """The parent of an operator that has one."""
        assert self.parent is not None
        return self.parent


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """What is trained, and on what loss."""

    model: MultiExitForSequenceClassification
    loss: Loss
    equilibrium: bool = False
    """Whether the gradients of the exits are balanced (``gradient_equilibrium``)."""
    log: Mapping[str, Any] = field(default_factory=dict)
    """Of a model that is taken as it is: what the record of the training says of it."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of an operator; most have one. A stage that is finished is not repeated on resuming."""

    name: str
    prepare: Callable[[Finished], Trainee]
    """Makes what is trained, from models of the stages before."""
    epochs: float = 1
    """Times the epochs of the settings."""
    learning_rate: float = 1
    """Times the learning rate of the settings."""
    trains: bool = True
    """Whether it is trained; if not, it is taken as it is prepared."""


Stages = Sequence[Stage]


def in_one_stage(prepare: Callable[[Context], Trainee]) -> Callable[[Context], Stages]:
    """Make the training function of an operator that trains once, from the function that prepares it."""

    @wraps(prepare)
    def stages(context: Context) -> Stages:
        return [Stage(name="training", prepare=lambda _: prepare(context))]

    return stages


def with_new_exits(
    model: MultiExitForSequenceClassification, settings: ExitTraining
) -> MultiExitForSequenceClassification:
    """Copy with an exit after every layer; if the settings ask for it, inputs of new ones are standardised.

    The last exit is not new. It starts from the parent's weights or, in BERT, from the pretrained pooler,
    which have learned from raw inputs; and as O's classifier shows, the last layer can be seen.
    """
    extended = with_all_exits(model)
    if settings.standardise:
        had = model.config.exit_layers
        standardise_exits(extended, [layer for layer in extended.config.exit_layers if layer not in had])
    return extended


def exits_loss(exit_loss: ExitLoss) -> Loss:
    """The sum or mean of the exits' cross-entropies; of a single exit, plain fine-tuning.

    Xin et al. 2022, section 3.3.1 sums; it leaves open whether the sum is divided by the number of exits.
    """

    def loss(output: MultiExitOutput, batch: Mapping[str, Tensor], progress: float) -> Tensor:  # noqa: ARG001
        assert output.loss is not None
        assert output.exit_logits is not None
        return output.loss if exit_loss == "sum" else output.loss / len(output.exit_logits)

    return loss


def distilling_from(
    teacher: MultiExitForSequenceClassification, *, student_exits: list[int], exit_loss: ExitLoss
) -> Loss:
    """The distillation loss of Xin et al. 2022, section 3.1, exits included.

    Args:
        teacher: the parent, in evaluation mode.
        student_exits: the student's exit layers.
        exit_loss: how their losses are joined.
    """

    def loss(output: MultiExitOutput, batch: Mapping[str, Tensor], progress: float) -> Tensor:  # noqa: ARG001
        return distillation_loss(
            output,
            teacher_outputs(teacher, batch),
            batch["attention_mask"],
            student_exits=student_exits,
            teacher_exits=teacher.config.exit_layers,
            exit_loss=exit_loss,
        )

    return loss


def teacher_outputs(
    teacher: MultiExitForSequenceClassification, batch: Mapping[str, Tensor]
) -> MultiExitOutput:
    """What a frozen teacher says of a batch."""
    with torch.no_grad():
        return teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
