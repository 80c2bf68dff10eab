"""Structured pruning: how much heads and FFN neurons matter, and the smaller dense model without the rest."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeops.models.families.declaration import BACKBONE, Units
from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.settings import kept_count


@dataclass(frozen=True)
class LayerMasks:
    """One value per head and per FFN neuron of every layer: multiplicative masks, or importances."""

    heads: list[Tensor]
    """Per layer, shape (heads,)."""
    ffn: list[Tensor]
    """Per layer, shape (FFN width,)."""


def ones_like_model(model: MultiExitForSequenceClassification) -> LayerMasks:
    """Masks that keep everything."""
    weight = next(model.parameters())  # for its device and precision
    return LayerMasks(
        heads=[weight.new_ones(heads) for heads in model.config.heads_per_layer],
        ffn=[weight.new_ones(ffn) for ffn in model.config.ffn_per_layer],
    )


@contextmanager
def masked(model: MultiExitForSequenceClassification, masks: LayerMasks) -> Iterator[None]:
    """While open, multiply each head's context and each FFN neuron's activation by its mask.

    Both masks act on the input of the linear map that follows, so a zero is exactly a pruned unit.
    """
    head_size, layout = model.config.head_size, model.shape.layout

    def multiply_input_by(mask: Tensor) -> Callable[[Any, tuple], tuple]:
        return lambda _, inputs: (inputs[0] * mask, *inputs[1:])

    hooks = []
    for layer, heads, ffn in zip(model.layers, masks.heads, masks.ffn, strict=True):
        per_column = heads.repeat_interleave(head_size)
        for units, mask in ((layout.heads, per_column), (layout.neurons, ffn)):
            behind = layer.get_submodule(units.columns)
            hooks.append(behind.register_forward_pre_hook(multiply_input_by(mask)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def importance(
    model: MultiExitForSequenceClassification, batches: Iterable[Mapping[str, Tensor]]
) -> LayerMasks:
    """First-order importance (Xin et al. 2022, section 3.2): the sum over batches of |dLoss/dmask|.

    Args:
        model: left as it was; dropout is off meanwhile and no gradient stays behind.
        batches: keyword arguments of the model, labels included, on the model's device.

    Returns:
        Importances, in the loss's unit per unit of mask.
    """
    was_training = model.training
    model.eval()
    masks = ones_like_model(model)
    tensors = [mask.requires_grad_() for mask in (*masks.heads, *masks.ffn)]
    totals = [torch.zeros_like(tensor) for tensor in tensors]
    for batch in batches:
        with masked(model, masks):
            loss = model(**batch).loss
        for total, gradient in zip(totals, torch.autograd.grad(loss, tensors), strict=True):
            total += gradient.abs()
    model.train(was_training)
    depth = len(masks.heads)
    return LayerMasks(heads=totals[:depth], ffn=totals[depth:])


def most_important(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest scores, ascending; of equal scores the lower index is kept."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def pruned(
    model: MultiExitForSequenceClassification, scores: LayerMasks, *, keep_heads: float, keep_ffn: float
) -> MultiExitForSequenceClassification:
    """A new, smaller dense model with the most important heads and FFN neurons of every layer.

    Args:
        model: the unpruned model; not changed.
        scores: importances, higher is kept.
        keep_heads: fraction of each layer's heads to keep, in (0, 1].
        keep_ffn: fraction of each layer's FFN neurons to keep, in (0, 1].

    Raises:
        UnusableSetting: a fraction leaves nothing.
    """
    return rewired(
        model,
        heads=[
            most_important(s, kept_count(keep_heads, len(s), what="pruning.keep_heads")) for s in scores.heads
        ],
        neurons=[
            most_important(s, kept_count(keep_ffn, len(s), what="pruning.keep_ffn")) for s in scores.ffn
        ],
    )


@torch.no_grad()
def rewired(
    model: MultiExitForSequenceClassification, *, heads: Sequence[Tensor], neurons: Sequence[Tensor]
) -> MultiExitForSequenceClassification:
    """A new, smaller dense model with these heads and FFN neurons (indices per layer, ascending) only."""
    config = model.config.with_shape(
        heads_per_layer=[len(kept) for kept in heads], ffn_per_layer=[len(kept) for kept in neurons]
    )
    weights, layout = model.state_dict(), model.shape.layout
    # A neuron is an output of the way into the FFN and an input of the way out, factorised or not.
    last, first = (".second", ".first") if config.ffn_rank else ("", "")
    for index, (kept_heads, kept_neurons) in enumerate(zip(heads, neurons, strict=True)):
        prefix = f"{BACKBONE}.{layout.layer}.{index}"
        _keep(weights, prefix, layout.heads, kept_heads, size=config.head_size)
        _keep(weights, prefix, layout.neurons, kept_neurons, last=last, first=first)
    smaller = MultiExitForSequenceClassification(config).to(model.device)
    smaller.load_state_dict(weights)
    return smaller


def _keep(
    weights: dict[str, Tensor],
    layer: str,
    units: Units,
    kept: Tensor,
    *,
    size: int = 1,
    last: str = "",
    first: str = "",
) -> None:
    """Keep only some units of a layer: outputs of the maps into them, inputs of the one behind.

    Args:
        weights: of the model, changed in place.
        layer: what the names of the layer's tensors begin with.
        units: where they are.
        kept: their indices.
        size: outputs of a map that are one unit.
        last: ending of the name of a factorised map's last factor.
        first: the same of the first one.
    """
    for name in units.tables:
        weights[f"{layer}.{name}.weight"] = weights[f"{layer}.{name}.weight"][:, kept]
    outputs = (kept[:, None] * size + torch.arange(size, device=kept.device)).flatten()
    behind = f"{layer}.{units.columns}{first}.weight"
    whole = weights[behind].shape[1]
    rows = torch.cat([outputs + part * whole for part in range(units.parts)])
    weights[behind] = weights[behind][:, outputs]
    for name in units.rows:
        for kind in ("weight", "bias"):
            if (full := f"{layer}.{name}{last}.{kind}") in weights:
                weights[full] = weights[full][rows]
