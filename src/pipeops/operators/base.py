"""What an operator is given, and what it hands to the training."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeops.models.multi_exit import (
    MultiExitForSequenceClassification,
    MultiExitOutput,
    standardise_exits,
    with_all_exits,
)
from pipeops.operators.losses import distillation_loss
from pipeops.settings import CostEffSection, ExitLoss, ExitTraining, PruningSection

Loss = Callable[[MultiExitOutput, Mapping[str, Tensor], float], Tensor]
"""Loss of the trained model's output on a batch, when this part of the training (0 to 1) is done."""
Finished = Callable[[str], MultiExitForSequenceClassification]
"""Loads the model of an earlier stage by the stage's name; each call gives a new one."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything an operator may start from."""

    parent: MultiExitForSequenceClassification | None
    """The trained model that the operator is applied to, in evaluation mode; None for O."""
    backbone: Path
    """Folder of the pretrained encoder that O starts from."""
    student: Path | None
    """Folder of the pretrained encoder that D starts from; None: every second layer of ``backbone``."""
    labels: Sequence[str]
    """Class names in the order of their ids."""
    sep_token_id: int
    """The token that ends a segment."""
    pruning: PruningSection
    """Settings of P."""
    costeff: CostEffSection
    """Settings of C."""
    exits: ExitTraining
    """What classifiers see, and how the losses of several are joined."""
    importance_batches: Callable[[int | None], Iterable[Mapping[str, Tensor]]]
    """Batches of so many examples (None: all) over which importance is accumulated, labels included."""


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """What is trained, and on what loss."""

    model: MultiExitForSequenceClassification
    loss: Loss
    equilibrium: bool = False
    """Whether the gradients of the exits are balanced (:mod:`pipeops.operators.gradient_equilibrium`)."""


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
    """The distillation loss of the paper's section 3.1, exits included.

    Args:
        teacher: the parent, in evaluation mode.
        student_exits: the student's exit layers.
        exit_loss: how their losses are joined.
    """

    def loss(output: MultiExitOutput, batch: Mapping[str, Tensor], progress: float) -> Tensor:  # noqa: ARG001
        return distillation_loss(
            output,
            answers_of(teacher, batch),
            batch["attention_mask"],
            student_exits=student_exits,
            teacher_exits=teacher.config.exit_layers,
            exit_loss=exit_loss,
        )

    return loss


def answers_of(teacher: MultiExitForSequenceClassification, batch: Mapping[str, Tensor]) -> MultiExitOutput:
    """What a frozen teacher says of a batch."""
    with torch.no_grad():
        return teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
