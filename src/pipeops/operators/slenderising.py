"""Slenderising a multi-exit model in width (COST-EFF): what matters to every exit, and the narrower model.

Width is heads, FFN neurons and the rank of the word embeddings; depth stays. As the loss that importance is
taken from may hold every exit, what is kept serves the shallow exits too, and not only the last.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pipeops.models.families.declaration import BACKBONE
from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.operators.importance import LayerMasks, most_important, rewired

Loss = Callable[[MultiExitForSequenceClassification, Mapping[str, Tensor]], Tensor]
"""The loss of a model on a batch, a scalar."""


def weight_importance(
    model: MultiExitForSequenceClassification, batches: Iterable[Mapping[str, Tensor]], loss: Loss
) -> LayerMasks:
    """First-order importance: |w| * sum over batches of |dLoss/dw|, summed over the weights of each unit.

    A head's weights are its columns of the attention's output matrix; a neuron's are its row into the FFN
    (two where the FFN is gated) and its column out of it.

    Args:
        model: left as it was; dropout is off meanwhile and no gradient stays behind.
        batches: what ``loss`` takes, on the model's device.
        loss: which loss matters: that of all exits, or of the last only.

    Returns:
        Importances, in the loss's unit.
    """
    was_training = model.training
    model.eval()
    layers, layout = model.layers, model.shape.layout
    names = (layout.heads.columns, *layout.neurons.maps)
    matrices = [layer.get_submodule(name).weight for name in names for layer in layers]
    totals = [torch.zeros_like(matrix) for matrix in matrices]
    for batch in batches:
        for total, gradient in zip(totals, torch.autograd.grad(loss(model, batch), matrices), strict=True):
            total += gradient.abs()
    model.train(was_training)
    scores = [matrix.detach().abs() * total for matrix, total in zip(matrices, totals, strict=True)]
    depth, head_size = len(layers), model.config.head_size
    attention, *rows_in, columns_out = (
        scores[start : start + depth] for start in range(0, len(scores), depth)
    )
    ffn = [out.sum(dim=0) for out in columns_out]
    for of_map in rows_in:
        into = (score.sum(dim=1).view(layout.neurons.parts, -1).sum(dim=0) for score in of_map)
        ffn = [one + other for one, other in zip(into, ffn, strict=True)]
    return LayerMasks(heads=[score.sum(dim=0).view(-1, head_size).sum(dim=1) for score in attention], ffn=ffn)


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
    name = f"{BACKBONE}.{model.shape.layout.words}"
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
