"""Encoders with ModernBERT's layers, run by transformers."""

from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pipeops.models.families.pre_norm import Attention, PreNorm
from pipeops.models.shape import ModelShape

_KINDS: dict[Attention, str] = {"global": "full_attention", "local": "sliding_attention"}


def encoder_settings(shape: ModelShape, config: PreTrainedConfig) -> dict[str, Any]:
    """Settings of transformers' encoder; see :mod:`pipeops.models.encoders.post_norm`."""
    layout = cast(PreNorm, shape.layout)
    rotary = {
        kind: {"rope_type": "default", "rope_theta": layout.theta(attention)}
        for attention, kind in _KINDS.items()
    }
    return {
        "hidden_activation": shape.hidden_act,
        "embedding_dropout": config.hidden_dropout_prob,
        "mlp_dropout": config.hidden_dropout_prob,
        "attention_dropout": config.attention_probs_dropout_prob,
        "norm_eps": shape.layer_norm_eps,
        "layer_types": [_KINDS[attention] for attention in layout.attention],
        "local_attention": 2 * layout.window,
        "rope_parameters": rotary,
        # Its defaults lie beyond a smaller vocabulary, which is warned about.
        **dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")),
    }


def finish(encoder: PreTrainedModel, shape: ModelShape) -> None:
    """Give the first layer the norm that it has where it was not an encoder's first."""
    if cast(PreNorm, shape.layout).first_normed:
        norm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps, bias=False)
        encoder.set_submodule("layers.0.attn_norm", norm)


def hidden_states(
    encoder: PreTrainedModel,
    shape: ModelShape,  # noqa: ARG001 - as of other layouts
    input_ids: Tensor,
    attention_mask: Tensor,
) -> tuple[Tensor, ...]:
    """The embedding output and each layer's output, normed as an exit reads it, each (batch, length, hidden).

    Between layers states are not normed: they grow from layer to layer, and no two layers compare.
    """
    embedded, *between, last = encoder(
        input_ids, attention_mask=attention_mask, output_hidden_states=True
    ).hidden_states
    # transformers norms the last one itself.
    return (embedded, *(encoder.final_norm(states) for states in between), last)
