"""Encoders with BERT's layers and biases for how far apart two tokens are, as ONNX.

The first stage computes the bucket of each pair of tokens; every layer looks its own biases up.
"""

import numpy as np
from onnx import TensorProto, ValueInfoProto

from pipeops.models.families.relative_post_norm import TABLE, buckets
from pipeops.models.shape import ModelShape
from pipeops.onnx.encoders import post_norm
from pipeops.onnx.encoders.post_norm import read
from pipeops.onnx.stages import Stage, tensor

__all__ = ["embeddings", "layer", "read", "shared"]

PAIRS = "pairs"
"""Bucket of each token that each token attends to."""


def shared(_: ModelShape) -> list[ValueInfoProto]:
    """The bucket of each pair of tokens, a row for each that attends."""
    return [tensor(PAIRS, TensorProto.INT32, "length", "length")]


def embeddings(stage: Stage) -> str:
    """Embed ``input_ids`` into ``hidden.0``, and compute what all layers take."""
    most = stage.shape.max_length
    places = stage.constant(f"{PAIRS}.places", np.arange(most, dtype=np.int32))
    first = stage.constant(f"{PAIRS}.first", np.array([0]))
    length = stage.node("Shape", ["input_ids"], f"{PAIRS}.length", start=1, end=2)
    row = stage.node("Slice", [places, first, length], f"{PAIRS}.row")
    column = stage.node(
        "Unsqueeze", [row, stage.constant(f"{PAIRS}.last", np.array([-1]))], f"{PAIRS}.column"
    )
    apart = stage.node("Sub", [row, column], f"{PAIRS}.apart")
    # Counted from the longest distance to the left, the first of the buckets.
    offset = stage.constant(f"{PAIRS}.offset", np.array(most - 1, dtype=np.int32))
    index = stage.node("Add", [apart, offset], f"{PAIRS}.index")
    found = stage.constant(f"{PAIRS}.found", np.array(buckets(most), dtype=np.int32))
    stage.node("Gather", [found, index], PAIRS)
    return post_norm.embeddings(stage)


def layer(stage: Stage, number: int) -> str:
    """Turn ``hidden.{number - 1}`` into ``hidden.{number}``."""
    return post_norm.layer(stage, number, attend=_attend)


def _attend(stage: Stage, x: str, name: str, number: int) -> str:
    """Attention with the layer's biases, which no operator that holds the maps takes in int8."""
    parts = post_norm.queries_keys_values(stage, x, name, number)
    weight = stage.weights(f"backbone.encoder.layer.{number - 1}.{TABLE}.weight")
    table = stage.constant(f"{name}.bias.table", weight)
    rows = stage.node("Gather", [table, PAIRS], f"{name}.bias.rows")
    by_head = stage.node("Transpose", [rows], f"{name}.bias.by_head", perm=[2, 0, 1])
    axis = stage.constant(f"{name}.bias.axis", np.array([0]))
    bias = stage.node("Unsqueeze", [by_head, axis], f"{name}.bias")
    context = stage.attention(parts, f"{name}.context", number, bias=bias)
    # Padding stands elsewhere than the first token, so what it attends to differs.
    return stage.padding_like_first(context, name, mask="mask")
