"""Slenderising a multi-exit model in width (COST-EFF): what matters to every exit, and the narrower model.

Width is heads, FFN neurons and the rank of the word embeddings; depth stays. As the loss that importance is
taken from may hold every exit, what is kept serves the shallow exits too, and not only the last.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.operators.importance import LayerMasks, most_important, rewired

Loss = Callable[[MultiExitForSequenceClassification, Mapping[str, Tensor]], Tensor]
"""The loss of a model on a batch, a scalar."""


def weight_importance(
    model: MultiExitForSequenceClassification, batches: Iterable[Mapping[str, Tensor]], loss: Loss
) -> LayerMasks:
    """First-order importance: |w| * sum over batches of |dLoss/dw|, summed over the weights of each unit.

    A head's weights are its columns of the attention's output matrix; a neuron's are its row into the FFN and
    its column out of it.

    Args:
        model: left as it was; dropout is off meanwhile and no gradient stays behind.
        batches: what ``loss`` takes, on the model's device.
        loss: which loss matters: that of all exits, or of the last only.

    Returns:
        Importances, in the loss's unit.
    """
    was_training = model.training
    model.eval()
    layers = model.layers
    matrices = [layer.attention.output.dense.weight for layer in layers]
    matrices += [layer.intermediate.dense.weight for layer in layers]
    matrices += [layer.output.dense.weight for layer in layers]
    totals = [torch.zeros_like(matrix) for matrix in matrices]
    for batch in batches:
        for total, gradient in zip(totals, torch.autograd.grad(loss(model, batch), matrices), strict=True):
            total += gradient.abs()
    model.train(was_training)
    scores = [matrix.detach().abs() * total for matrix, total in zip(matrices, totals, strict=True)]
    depth, head_size = len(layers), model.config.head_size
    attention, rows_in, columns_out = scores[:depth], scores[depth : 2 * depth], scores[2 * depth :]
    return LayerMasks(
        heads=[score.sum(dim=0).view(-1, head_size).sum(dim=1) for score in attention],
        ffn=[into.sum(dim=1) + out.sum(dim=0) for into, out in zip(rows_in, columns_out, strict=True)],
    )


def slender(
    model: MultiExitForSequenceClassification, scores: LayerMasks, *, heads: int, ffn: int, rank: int
) -> MultiExitForSequenceClassification:
    """A new model with ``heads`` heads and ``ffn`` neurons in every layer, and word embeddings of ``rank``.

    Args:
        model: not changed.
        scores: importances, higher is kept.
        heads: per layer.
        ffn: neurons per layer.
        rank: of the word embeddings; 0 leaves them as they are.
    """
    narrower = rewired(
        model,
        heads=[most_important(score, heads) for score in scores.heads],
        neurons=[most_important(score, ffn) for score in scores.ffn],
    )
    return with_embedding_rank(narrower, rank) if rank else narrower


@torch.no_grad()
def with_embedding_rank(
    model: MultiExitForSequenceClassification, rank: int
) -> MultiExitForSequenceClassification:
    """A new model whose word embeddings are the best approximation of this rank (truncated SVD).

    At full rank the embeddings are what they were, but for rounding.
    """
    name = "backbone.embeddings.word_embeddings"
    weights = model.state_dict()
    if model.config.embedding_rank:
        table = weights.pop(f"{name}.table.weight") @ weights.pop(f"{name}.projection.weight").T
    else:
        table = weights.pop(f"{name}.weight")
    left, singular, right = torch.linalg.svd(table, full_matrices=False)
    weights[f"{name}.table.weight"] = left[:, :rank] * singular[:rank]
    weights[f"{name}.projection.weight"] = right[:rank].T.contiguous()
    factorised = MultiExitForSequenceClassification(model.config.with_shape(embedding_rank=rank))
    factorised.to(model.device).load_state_dict(weights)
    return factorised
