"""Encoders with BERT's layers, run by transformers."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from pipeops.models.shape import ModelShape


def encoder_settings(shape: ModelShape, config: PreTrainedConfig) -> dict[str, Any]:
    """Settings of transformers' encoder that its full width, and not the layers' own, decides.

    Args:
        shape: the model's.
        config: the model's, for its dropouts and initialisation.
    """
    return {
        "hidden_act": shape.hidden_act,
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
        "type_vocab_size": shape.type_vocab_size,
        "layer_norm_eps": shape.layer_norm_eps,
        "embedding_size": shape.layout.word_size(shape),  # read by ELECTRA only
    }


def finish(encoder: PreTrainedModel, shape: ModelShape) -> None:
    """Change what settings cannot say: nothing."""


def hidden_states(
    encoder: PreTrainedModel, shape: ModelShape, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, ...]:
    """The embedding output and each layer's output, as an exit reads it, each (batch, length, hidden).

    Args:
        encoder: as transformers made it.
        shape: the model's.
        input_ids: token ids, shape (batch, length).
        attention_mask: 1 for a token, 0 for padding, shape (batch, length).
    """
    segments = {}
    if shape.segmented:
        ids = segment_ids(input_ids, attention_mask, sep_token_id=shape.sep_token_id)
        segments = {"token_type_ids": ids}
    return encoder(
        input_ids, attention_mask=attention_mask, output_hidden_states=True, **segments
    ).hidden_states


def segment_ids(input_ids: Tensor, attention_mask: Tensor, *, sep_token_id: int) -> Tensor:
    """Segment of each token, 0 or 1, as a BERT tokenizer numbers them: 1 after the first separator.

    Deriving them keeps one input signature for all families, in training and in the exported graph.
    """
    separators = (input_ids == sep_token_id).long()
    seen_before = separators.cumsum(dim=1) - separators
    return seen_before.clamp(max=1) * attention_mask
