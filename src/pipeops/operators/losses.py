"""The training losses of Xin et al. 2022 (section 3) and Shen et al. 2022, as pure functions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeops.settings import ExitLoss

if TYPE_CHECKING:
    from pipeops.models.multi_exit import MultiExitOutput


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the student's class distribution under the teacher's, mean over the batch.

    Both arguments have shape (batch, labels); temperature 1 (Xin et al. 2022, section 3.1).
    """
    return F.cross_entropy(student_logits, teacher_logits.softmax(dim=-1))


def masked_mse(student: Tensor, teacher: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean squared error over the hidden values of the tokens that are not padding.

    Args:
        student: hidden states, shape (batch, length, hidden).
        teacher: the same of the teacher.
        attention_mask: 1 for a token, 0 for padding, shape (batch, length).
    """
    squared = (student - teacher).pow(2).mean(dim=-1)
    return (squared * attention_mask).sum() / attention_mask.sum()


def teacher_layer(layer: int, *, student_layers: int, teacher_layers: int) -> int:
    """The teacher's layer that the student's ``layer`` learns from, both counted from 1.

    For a student of half the depth this is 2i (Xin et al. 2022, 3.3.1); in general i * teacher / student,
    rounded up, so that the last layer always learns from the last.
    """
    return -(-layer * teacher_layers // student_layers)


def distillation_loss(
    student: "MultiExitOutput",
    teacher: "MultiExitOutput",
    attention_mask: Tensor,
    *,
    student_exits: list[int],
    teacher_exits: list[int],
    exit_loss: ExitLoss = "sum",
) -> Tensor:
    """Distillation (Xin et al. 2022, 3.1): prediction, embedding and last-layer losses, 1:1:1.

    The prediction loss is the sum or mean over the student's exits of the soft cross-entropy with the exit of
    the teacher's corresponding layer; a single exit learns from the teacher's last. With k exits the sum
    makes the weights k:1:1; Xin et al. 2022 (section 3.3.1) leave that open.

    Args:
        student: output of the model that is trained.
        teacher: output of the frozen parent for the same batch.
        attention_mask: shape (batch, length).
        student_exits: the student's exit layers, counted from 1.
        teacher_exits: the teacher's exit layers; where the student has several, every layer has one.
        exit_loss: ``sum`` or ``mean`` over the exits.
    """
    assert student.exit_logits is not None
    assert student.hidden_states is not None
    assert teacher.exit_logits is not None
    assert teacher.hidden_states is not None
    teacher_logits = dict(zip(teacher_exits, teacher.exit_logits, strict=True))
    depths = {"student_layers": student_exits[-1], "teacher_layers": teacher_exits[-1]}
    prediction = torch.stack(
        [
            soft_cross_entropy(logits, teacher_logits[teacher_layer(layer, **depths)])
            for layer, logits in zip(student_exits, student.exit_logits, strict=True)
        ]
    )
    joined = prediction.sum() if exit_loss == "sum" else prediction.mean()
    embedding = masked_mse(student.hidden_states[0], teacher.hidden_states[0], attention_mask)
    last_layer = masked_mse(student.hidden_states[-1], teacher.hidden_states[-1], attention_mask)
    return joined + embedding + last_layer


def hidden_states_loss(
    student: "MultiExitOutput", teacher: "MultiExitOutput", attention_mask: Tensor
) -> Tensor:
    """Mean squared error of all layers' hidden states, the embedding output included, summed over the layers.

    Student and teacher have the same depth and hidden size (COST-EFF slenderises within the layers).
    """
    assert student.hidden_states is not None
    assert teacher.hidden_states is not None
    pairs = zip(student.hidden_states, teacher.hidden_states, strict=True)
    return torch.stack([masked_mse(ours, theirs, attention_mask) for ours, theirs in pairs]).sum()


def soft_and_hard_loss(
    student: "MultiExitOutput", teacher_logits: Sequence[Tensor], labels: Tensor, *, soft: float
) -> Tensor:
    """Sum over the exits of soft and hard cross-entropy, weighted ``soft`` and ``1 - soft``.

    COST-EFF: 0.5 for the teaching assistant, 0.9 for the importance of what is slenderised.

    Args:
        student: output of the model with exits.
        teacher_logits: what each exit learns from, one tensor per exit, (batch, labels).
        labels: class ids, shape (batch,).
        soft: weight of the teacher's part, 0 to 1.
    """
    assert student.exit_logits is not None
    pairs = zip(student.exit_logits, teacher_logits, strict=True)
    soft_part = torch.stack([soft_cross_entropy(ours, theirs) for ours, theirs in pairs]).sum()
    hard_part = torch.stack([F.cross_entropy(logits, labels) for logits in student.exit_logits]).sum()
    return soft * soft_part + (1 - soft) * hard_part
