"""Encoders with ModernBERT's layers as ONNX.

The first stage computes the cosines and sines of all positions and, for local layers, what is added to the
scores of tokens that are too far away.
"""

from typing import TYPE_CHECKING, cast

import numpy as np
from onnx import TensorProto, ValueInfoProto

from pipeops.models.families.pre_norm import Attention, PreNorm
from pipeops.models.shape import ModelShape
from pipeops.onnx.stages import ACTIVATIONS, tensor

if TYPE_CHECKING:
    from pipeops.onnx.stages import Stage

WINDOW = "window"
FAR = np.finfo(np.float32).min
"""Added to the score of a token that a local layer does not attend to."""


def shared(shape: ModelShape) -> list[ValueInfoProto]:
    """Cosines and sines of each kind of attention, and for local layers what is added to their scores."""
    half = shape.head_size // 2
    found = [
        tensor(name, TensorProto.FLOAT, "length", half)
        for attention in _kinds(shape)
        for name in _rotary(attention)
    ]
    if "local" in _kinds(shape):
        found.append(tensor(WINDOW, TensorProto.FLOAT, 1, 1, "length", "length"))
    return found


def embeddings(stage: "Stage") -> str:
    """Embed ``input_ids`` into ``hidden.0``, and compute what all layers take."""
    stage.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    words = stage.word_embeddings("backbone.embeddings.tok_embeddings")
    normed = stage.layer_norm(words, "embeddings.normed", "backbone.embeddings.norm", bias=False)
    start, step = (
        stage.constant(f"positions.{name}", np.array(n)) for name, n in (("start", 0), ("step", 1))
    )
    axis = stage.constant("positions.axis", np.array(1))
    lengths = stage.node("Shape", ["input_ids"], "positions.shape")
    length = stage.node("Gather", [lengths, axis], "positions.length")
    places = stage.node("Range", [start, length, step], "positions")
    places = stage.node("Cast", [places], "positions.float", to=TensorProto.FLOAT)
    column = stage.node(
        "Unsqueeze", [places, stage.constant("positions.last", np.array([1]))], "positions.column"
    )
    for attention in _kinds(stage.shape):
        frequencies = stage.constant(f"rotary.{attention}.frequencies", _frequencies(stage.shape, attention))
        angles = stage.node("Mul", [column, frequencies], f"rotary.{attention}.angles")
        cosines, sines = _rotary(attention)
        stage.node("Cos", [angles], cosines)
        stage.node("Sin", [angles], sines)
    if "local" in _kinds(stage.shape):
        _window(stage, places, column)
    return stage.padding_like_first(normed, "hidden.0")


def layer(stage: "Stage", number: int) -> str:
    """Turn ``hidden.{number - 1}`` into ``hidden.{number}``."""
    shape, layout = stage.shape, cast(PreNorm, stage.shape.layout)
    source, name, x = f"backbone.layers.{number - 1}", f"layer.{number}", f"hidden.{number - 1}"
    read = x
    if number > 1 or layout.first_normed:
        read = stage.layer_norm(x, f"{name}.attention.normed", f"{source}.attn_norm", bias=False)
    attended = _attention(stage, read, f"{name}.attention", source, number)
    attended = stage.linear(attended, f"{name}.attention.output", f"{source}.attn.Wo", bias=False)
    x = stage.node("Add", [attended, x], f"{name}.attention.sum")
    read = stage.layer_norm(x, f"{name}.ffn.normed", f"{source}.mlp_norm", bias=False)
    inner = stage.linear(read, f"{name}.ffn.inner", f"{source}.mlp.Wi", bias=False, rank=shape.ffn_rank)
    inner, gate = stage.split(
        inner, [f"{name}.ffn.{part}" for part in ("input", "gate")], f"{name}.ffn.split"
    )
    inner = stage.node(ACTIVATIONS[shape.hidden_act], [inner], f"{name}.ffn.active")
    inner = stage.node("Mul", [inner, gate], f"{name}.ffn.gated")
    outer = stage.linear(inner, f"{name}.ffn.output", f"{source}.mlp.Wo", bias=False, rank=shape.ffn_rank)
    return stage.node("Add", [outer, x], f"hidden.{number}")


def read(stage: "Stage", number: int) -> str:
    """What an exit reads: the layer's output after the encoder's last norm."""
    return stage.layer_norm(f"hidden.{number}", f"exit.{number}.read", "backbone.final_norm", bias=False)


def _attention(stage: "Stage", x: str, name: str, source: str, number: int) -> str:
    """Multi-head self-attention; queries and keys are turned by their positions."""
    attention = cast(PreNorm, stage.shape.layout).attention[number - 1]
    packed = stage.linear(x, f"{name}.qkv", f"{source}.attn.Wqkv", bias=False)
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    queries, keys, values = stage.split(packed, parts, f"{name}.split")
    begin = stage.constant(f"{name}.begin", np.array([0]))
    turned = [
        stage.node(
            "RotaryEmbedding", [part, begin, *_rotary(attention)], f"{part}.turned", domain="com.microsoft"
        )
        for part in (queries, keys)
    ]
    bias = WINDOW if attention == "local" else ""
    context = stage.attention([*turned, values], f"{name}.context", number, bias=bias)
    # Padding stands elsewhere than the first token, so what it attends to differs.
    return stage.padding_like_first(context, f"{name}.kept", mask="mask")


def _window(stage: "Stage", places: str, column: str) -> None:
    """What is added to the scores of local layers: 0 within the window, next to minus infinity outside."""
    apart = stage.node("Sub", [column, places], f"{WINDOW}.apart")
    apart = stage.node("Abs", [apart], f"{WINDOW}.distance")
    furthest = stage.constant(f"{WINDOW}.furthest", np.float32(cast(PreNorm, stage.shape.layout).window))
    outside = stage.node("Greater", [apart, furthest], f"{WINDOW}.outside")
    far, near = (stage.constant(f"{WINDOW}.{n}", np.float32(v)) for n, v in (("far", FAR), ("near", 0)))
    added = stage.node("Where", [outside, far, near], f"{WINDOW}.added")
    axes = stage.constant(f"{WINDOW}.axes", np.array([0, 1]))
    stage.node("Unsqueeze", [added, axes], WINDOW)


def _kinds(shape: ModelShape) -> list[Attention]:
    """Kinds of attention that the layers have."""
    return sorted(set(cast(PreNorm, shape.layout).attention))


def _rotary(attention: Attention) -> tuple[str, str]:
    """Names of the cosines and sines."""
    return f"rotary.{attention}.cosines", f"rotary.{attention}.sines"


def _frequencies(shape: ModelShape, attention: Attention) -> np.ndarray:
    """Radians that each pair of a head's values is turned by per position, (1, head size / 2)."""
    powers = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
    base = np.float32(cast(PreNorm, shape.layout).theta(attention))
    return (1 / base**powers).astype(np.float32)[None]
