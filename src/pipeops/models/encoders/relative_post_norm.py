"""Encoders with BERT's layers and biases for how far apart two tokens are, run by transformers."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeops.models.encoders.post_norm import encoder_settings, hidden_states
from pipeops.models.families.relative_post_norm import BUCKETS, buckets
from pipeops.models.shape import ModelShape

__all__ = ["encoder_settings", "finish", "hidden_states"]


def finish(encoder: PreTrainedModel, shape: ModelShape) -> None:
    """Give every layer its table."""
    for index, heads in enumerate(shape.heads_per_layer):
        attention = encoder.get_submodule(f"{shape.layout.layer}.{index}.attention.self")
        attention.relative_bias = nn.Embedding(BUCKETS, heads)
        attention.register_forward_pre_hook(_add_bias, with_kwargs=True)


def _add_bias(attention: Any, inputs: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Put the biases into the mask, which attention adds to its scores."""
    states, mask = inputs[0], named["attention_mask"]
    length = states.shape[1]
    rows = attention.relative_bias(torch.tensor(buckets(length), device=states.device))
    bias = every_pair(rows)
    if mask is not None and mask.dtype == torch.bool:
        bias = torch.where(mask, bias, torch.finfo(bias.dtype).min)
    elif mask is not None:
        bias = bias + mask
    return inputs, named | {"attention_mask": bias}


def every_pair(rows: Tensor) -> Tensor:
    """Biases of each token, and within it of each that it attends to.

    Args:
        rows: biases of tokens 1 - length to length - 1 places away, shape (2 * length - 1, heads).

    Returns:
        Shape (1, heads, length, length).
    """
    length = (len(rows) + 1) // 2
    # The first token has those from 0 places away on, the last those up to 0 places.
    return rows.T.unfold(1, length, 1).flip(1)[None]
