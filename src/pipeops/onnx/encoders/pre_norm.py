"""Encoders with ModernBERT's layers as ONNX.

The first stage computes what layers share: cosines and sines of all positions, and how local layers cut an
input. Local layers have two forms, and the length of the input decides. Tokens of a short input are compared
with all, and those outside the window are masked. A long input is cut into blocks as long as the window is to
one side, and a block is compared with itself and its two neighbours. Time and memory then grow with the
length, not with its square.
"""

from typing import TYPE_CHECKING, cast

import numpy as np
from onnx import TensorProto, ValueInfoProto

from pipeops.models.families.pre_norm import BLOCK_SPAN, Attention, PreNorm
from pipeops.models.shape import ModelShape
from pipeops.onnx.stages import ACTIVATIONS, tensor

if TYPE_CHECKING:
    from pipeops.onnx.stages import Stage

WINDOW, BLOCKS = "window", "blocks"
FAR = np.finfo(np.float32).min
"""Added to the score of a token that a local layer does not attend to."""


def shared(shape: ModelShape) -> list[ValueInfoProto]:
    """Cosines and sines of each kind of attention; what masks a short input and cuts a long one."""
    half = shape.head_size // 2
    found = [
        tensor(name, TensorProto.FLOAT, "length", half)
        for attention in _kinds(shape)
        for name in _rotary(attention)
    ]
    if "local" in _kinds(shape):
        span = BLOCK_SPAN * cast(PreNorm, shape.layout).window
        found += [
            tensor(WINDOW, TensorProto.FLOAT, 1, 1, "near", "near"),
            tensor(f"{BLOCKS}.mask", TensorProto.INT32, "batch", "blocks", span),
            tensor(f"{BLOCKS}.are_few", TensorProto.BOOL, 1),
            *(tensor(f"{BLOCKS}.{name}", TensorProto.INT64, size) for name, size in _SIZES.items()),
        ]
    return found


_SIZES = {"length": 1, "pads_of_queries": 6, "pads_of_keys": 6, "joined": 3}
"""What else cuts a long input, each a vector."""


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
        _window(stage, places)
        _blocks(stage)
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
    parts, context = [*turned, values], f"{name}.context"
    if attention == "local":
        few, many = stage.branch(), stage.branch()
        few.attention(parts, f"{context}.masked", number, bias=WINDOW)
        _in_blocks(many, parts, context, number)
        stage.choose(f"{BLOCKS}.are_few", context, few, many, number)
    else:
        stage.attention(parts, context, number)
    # Padding stands elsewhere than the first token, so what it attends to differs.
    return stage.padding_like_first(context, f"{name}.kept", mask="mask")


def _window(stage: "Stage", places: str) -> None:
    """What is added to the scores of a short input: 0 within the window, next to minus infinity outside."""
    window = cast(PreNorm, stage.shape.layout).window
    first, last, axis = (
        stage.constant(f"{WINDOW}.{name}", np.array([value]))
        for name, value in (("first", 0), ("last", BLOCK_SPAN * window), ("axis", 1))
    )
    near = stage.node("Slice", [places, first, last], f"{WINDOW}.near")
    column = stage.node("Unsqueeze", [near, axis], f"{WINDOW}.column")
    apart = stage.node("Sub", [column, near], f"{WINDOW}.apart")
    distance = stage.node("Abs", [apart], f"{WINDOW}.distance")
    furthest, far, none = (
        stage.constant(f"{WINDOW}.{name}", np.array(value, dtype=np.float32))
        for name, value in (("furthest", window), ("far", FAR), ("none", 0))
    )
    outside = stage.node("Greater", [distance, furthest], f"{WINDOW}.outside")
    added = stage.node("Where", [outside, far, none], f"{WINDOW}.added")
    axes = stage.constant(f"{WINDOW}.axes", np.array([0, 1]))
    stage.node("Unsqueeze", [added, axes], WINDOW)


def _blocks(stage: "Stage") -> None:
    """How a long input is cut: padded to whole blocks, and keys by one more at both ends."""
    size = cast(PreNorm, stage.shape.layout).window
    zero, block, span, infer = (
        stage.constant(f"{BLOCKS}.{name}", np.array([value]))
        for name, value in (("zero", 0), ("size", size), ("span", BLOCK_SPAN * size), ("infer", -1))
    )
    batch = stage.node("Shape", ["input_ids"], f"{BLOCKS}.batch", start=0, end=1)
    length = stage.node("Shape", ["input_ids"], f"{BLOCKS}.length", start=1, end=2)
    stage.node("LessOrEqual", [length, span], f"{BLOCKS}.are_few")
    negative = stage.node("Neg", [length], f"{BLOCKS}.negative")
    missing = stage.node("Mod", [negative, block], f"{BLOCKS}.missing")
    after = stage.node("Add", [missing, block], f"{BLOCKS}.after")
    # Begin of each axis, then end of each: (batch, length, states).
    stage.node("Concat", [zero, zero, zero, zero, missing, zero], f"{BLOCKS}.pads_of_queries", axis=0)
    stage.node("Concat", [zero, block, zero, zero, after, zero], f"{BLOCKS}.pads_of_keys", axis=0)
    padded_length = stage.node("Add", [length, missing], f"{BLOCKS}.padded_length")
    stage.node("Concat", [infer, padded_length, zero], f"{BLOCKS}.joined", axis=0)
    pads = stage.node("Concat", [zero, block, zero, after], f"{BLOCKS}.pads_of_mask", axis=0)
    padded = stage.node("Pad", ["mask", pads], f"{BLOCKS}.padded")
    flat = stage.constant(f"{BLOCKS}.flat", np.array([-1, size]))
    spans = _with_neighbours(stage, padded, f"{BLOCKS}.spans", size, flat)
    by_input = stage.node("Concat", [batch, infer, span], f"{BLOCKS}.by_input", axis=0)
    stage.node("Reshape", [spans, by_input], f"{BLOCKS}.mask")


def _in_blocks(stage: "Stage", parts: list[str], name: str, number: int) -> str:
    """Attention of each block to itself and its neighbours; see :func:`_blocks`."""
    shape, size = stage.shape, cast(PreNorm, stage.shape.layout).window
    attended = shape.heads_per_layer[number - 1] * shape.head_size
    flat = stage.constant(f"{name}.flat", np.array([-1, size, attended]))
    padded = [
        stage.node("Pad", [part, f"{BLOCKS}.pads_of_{kind}"], f"{part}.padded")
        for part, kind in zip(parts, ("queries", "keys", "keys"), strict=True)
    ]
    queries = stage.node("Reshape", [padded[0], flat], f"{parts[0]}.blocks")
    keys, values = (_with_neighbours(stage, part, f"{part}.blocks", size, flat) for part in padded[1:])
    apart = np.abs(np.arange(size)[:, None] + size - np.arange(BLOCK_SPAN * size))
    added = np.where(apart > size, FAR, np.float32(0)).astype(np.float32)[None, None]
    band = stage.constant(f"{name}.band", added)
    of_blocks = stage.constant(f"{name}.of_blocks", np.array([-1, BLOCK_SPAN * size]))
    mask = stage.node("Reshape", [f"{BLOCKS}.mask", of_blocks], f"{name}.mask")
    blocks = stage.attention([queries, keys, values], f"{name}.blocks", number, mask=mask, bias=band)
    joined = stage.node("Reshape", [blocks, f"{BLOCKS}.joined"], f"{name}.joined")
    first, axis = (stage.constant(f"{name}.{n}", np.array([v])) for n, v in (("first", 0), ("axis", 1)))
    return stage.node("Slice", [joined, first, f"{BLOCKS}.length", axis], f"{name}.cut")


def _with_neighbours(stage: "Stage", x: str, name: str, size: int, flat: str) -> str:
    """Cut an input that has one more block at both ends into blocks, each between its two neighbours."""
    axis = stage.constant(f"{name}.axis", np.array([1]))
    thirds = []
    for third in range(BLOCK_SPAN):
        first = stage.constant(f"{name}.{third}.first", np.array([third * size]))
        end = (third + 1 - BLOCK_SPAN) * size or np.iinfo(np.int64).max
        last = stage.constant(f"{name}.{third}.last", np.array([end]))
        part = stage.node("Slice", [x, first, last, axis], f"{name}.{third}.part")
        thirds.append(stage.node("Reshape", [part, flat], f"{name}.{third}"))
    return stage.node("Concat", thirds, name, axis=1)


def _kinds(shape: ModelShape) -> list[Attention]:
    """Kinds of attention that the layers have."""
    return sorted(set(cast(PreNorm, shape.layout).attention))


def _rotary(attention: Attention) -> tuple[str, str]:
    """Names of the cosines and sines."""
    return f"rotary.{attention}.cosines", f"rotary.{attention}.sines"


def _frequencies(shape: ModelShape, attention: Attention) -> np.ndarray:
    """Radians that each pair of a head's values is turned by per position, (1, head size / 2)."""
    powers = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
    base = np.float64(cast(PreNorm, shape.layout).theta(attention))
    # Rounded where PyTorch rounds: at the 8,000th position one bit of a frequency is 0.0005 radians.
    return (1 / (base**powers).astype(np.float32))[None]
