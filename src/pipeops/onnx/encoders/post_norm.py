"""Encoders with BERT's layers as ONNX."""

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto

from pipeops.models.families.post_norm import PostNorm
from pipeops.models.shape import ModelShape
from pipeops.onnx.stages import ACTIVATIONS, Stage

Attend = Callable[[Stage, str, str, int], str]
"""Attention of the tokens of a layer's input to each other; name of the result, number of the layer."""
PARTS = ("query", "key", "value")

EMBEDDINGS = "backbone.embeddings"


def shared(shape: ModelShape) -> list[ValueInfoProto]:  # noqa: ARG001
    """What all layers take beside the mask: nothing."""
    return []


def embeddings(stage: Stage) -> str:
    """Embed ``input_ids`` into ``hidden.0`` and cast ``attention_mask`` to ``mask``."""
    shape = stage.shape
    types = stage.weights(f"{EMBEDDINGS}.token_type_embeddings.weight")
    # Inputs are padded on the right, so the first token always reads the same row.
    positions = stage.weights(f"{EMBEDDINGS}.position_embeddings.weight")[shape.position_offset :]
    mask = stage.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    summed = stage.word_embeddings(f"{EMBEDDINGS}.word_embeddings")
    # Where every token has type 0, its row is folded into the positions.
    placed = positions if shape.segmented else positions + types[0]
    table = stage.constant("embeddings.positions.table", placed)
    start = stage.constant("embeddings.positions.start", np.array([0]))
    length = stage.node("Shape", ["input_ids"], "embeddings.length", start=1, end=2)
    rows = stage.node("Slice", [table, start, length], "embeddings.positions")
    summed = stage.node("Add", [summed, rows], "embeddings.placed")
    if shape.segmented:
        types_table = stage.constant("embeddings.types.table", types)
        rows = stage.node("Gather", [types_table, _segments(stage, mask)], "embeddings.types")
        summed = stage.node("Add", [summed, rows], "embeddings.typed")
    normed = stage.layer_norm(summed, "embeddings.normed", f"{EMBEDDINGS}.LayerNorm")
    if not cast(PostNorm, shape.layout).embedding_size:
        return stage.padding_like_first(normed, "hidden.0")
    kept = stage.padding_like_first(normed, "embeddings.kept")
    return stage.linear(kept, "hidden.0", "backbone.embeddings_project")


def layer(stage: Stage, number: int, *, attend: Attend | None = None) -> str:
    """Turn ``hidden.{number - 1}`` into ``hidden.{number}``.

    Args:
        stage: of the layer.
        number: of the layer, counted from 1.
        attend: how tokens attend to each other; None: to all that are no padding.
    """
    source, name, x = f"backbone.encoder.layer.{number - 1}", f"layer.{number}", f"hidden.{number - 1}"
    rank = stage.shape.ffn_rank
    attended = (attend or _attend)(stage, x, f"{name}.attention", number)
    attended = stage.linear(attended, f"{name}.attention.output", f"{source}.attention.output.dense")
    x = stage.node("Add", [attended, x], f"{name}.attention.sum")
    x = stage.layer_norm(x, f"{name}.attention.normed", f"{source}.attention.output.LayerNorm")
    inner = stage.linear(x, f"{name}.ffn.inner", f"{source}.intermediate.dense", rank=rank)
    inner = stage.node(ACTIVATIONS[stage.shape.hidden_act], [inner], f"{name}.ffn.active")
    outer = stage.linear(inner, f"{name}.ffn.output", f"{source}.output.dense", rank=rank)
    x = stage.node("Add", [outer, x], f"{name}.ffn.sum")
    return stage.layer_norm(x, f"hidden.{number}", f"{source}.output.LayerNorm")


def read(stage: Stage, number: int) -> str:  # noqa: ARG001
    """What an exit reads: the layer's output."""
    return f"hidden.{number}"


def queries_keys_values(stage: Stage, x: str, name: str, number: int) -> list[str]:
    """The three that a layer's attention takes, by one packed product."""
    packed = stage.affine(x, f"{name}.qkv", *_maps(stage, number))
    return stage.split(packed, [f"{name}.{part}" for part in PARTS], f"{name}.split")


def _attend(stage: Stage, x: str, name: str, number: int) -> str:
    weight, bias = _maps(stage, number)
    return stage.self_attention(x, name, number, weight=weight, bias=bias)


def _maps(stage: Stage, number: int) -> list[NDArray[np.float32]]:
    """Weight and bias of a layer's maps to queries, keys and values, one after another."""
    source = f"backbone.encoder.layer.{number - 1}.attention.self"
    return [
        np.concatenate([stage.weights(f"{source}.{part}.{kind}") for part in PARTS])
        for kind in ("weight", "bias")
    ]


def _segments(stage: Stage, mask: str) -> str:
    """Segment of each token (0 or 1): whether a separator came before it, and 0 on padding."""
    name = "embeddings.segments"
    separator = stage.constant(f"{name}.separator", np.array(stage.shape.sep_token_id))
    axis = stage.constant(f"{name}.axis", np.array(1))
    zero = stage.constant(f"{name}.zero", np.array(0, dtype=np.int32))
    found = stage.node("Equal", ["input_ids", separator], f"{name}.found")
    found = stage.node("Cast", [found], f"{name}.counted", to=TensorProto.INT32)
    before = stage.node("CumSum", [found, axis], f"{name}.before", exclusive=1)
    second = stage.node("Greater", [before, zero], f"{name}.second")
    second = stage.node("Cast", [second], f"{name}.unmasked", to=TensorProto.INT32)
    return stage.node("Mul", [second, mask], name)
