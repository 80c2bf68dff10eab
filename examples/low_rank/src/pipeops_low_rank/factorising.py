"""F: factorise the FFN's matrices by truncated SVD, then distil from the parent as it was."""

import torch
from torch import Tensor

from pipeops.models.families.declaration import BACKBONE
from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.operators.base import Context, Trainee, distilling_from, in_one_stage
from pipeops_low_rank import kept_rank


@in_one_stage
def factorise(context: Context) -> Trainee:
    """The factorised model; its teacher is the parent as it was."""
    parent = context.teacher
    rank = kept_rank(parent.config.shape, context.settings.keep_rank)
    smaller = with_ffn_rank(parent, rank)
    exits = smaller.config.exit_layers
    loss = distilling_from(parent, student_exits=exits, exit_loss=context.exits.exit_loss)
    return Trainee(model=smaller, loss=loss)


@torch.no_grad()
def with_ffn_rank(model: MultiExitForSequenceClassification, rank: int) -> MultiExitForSequenceClassification:
    """A new model whose FFN matrices are the best approximations of this rank.

    Args:
        model: not factorised yet; it is not changed.
        rank: at most the smaller size of each matrix.
    """
    weights, layout = model.state_dict(), model.shape.layout
    for index in range(model.config.num_hidden_layers):
        for part in layout.neurons.maps:
            name = f"{BACKBONE}.{layout.layer}.{index}.{part}"
            first, second = factors(weights.pop(f"{name}.weight"), rank)
            weights[f"{name}.first.weight"] = first
            weights[f"{name}.second.weight"] = second
            if f"{name}.bias" in weights:
                weights[f"{name}.second.bias"] = weights.pop(f"{name}.bias")
    factorised = MultiExitForSequenceClassification(model.config.with_shape(ffn_rank=rank))
    factorised.to(model.device).load_state_dict(weights)
    return factorised


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factorise a matrix by truncated SVD; each factor takes the roots of the singular values.

    Args:
        weight: shape (outputs, inputs).
        rank: at most the smaller of the two.

    Returns:
        Shapes (rank, inputs) and (outputs, rank). The second times the first is closest to ``weight`` among
        all matrices of this rank (Eckart and Young 1936).
    """
    left, singular, right = torch.linalg.svd(weight, full_matrices=False)
    roots = singular[:rank].sqrt()
    return roots[:, None] * right[:rank], left[:, :rank] * roots
