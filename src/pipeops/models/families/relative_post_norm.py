"""The layout of MPNet's layers: BERT's, with a bias on the attention scores for how far apart two tokens are.

Distances fall into buckets: short ones each have their own, longer ones share one. A table has a row for each
bucket, before and after a token, and a column for each head. MPNet's layers share one table. Here each has
its own, a copy at first, since P and C leave other heads in every layer.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from pipeops.models.families.declaration import TensorShapes, Units
from pipeops.models.families.post_norm import PostNorm

if TYPE_CHECKING:
    from pipeops.models.shape import ModelShape

BUCKETS = 32
"""Half of them for tokens before, half for tokens after, as in T5 (Raffel et al. 2020)."""
EXACT = 8
"""Distances below it have a bucket each."""
TABLE = "attention.self.relative_bias"
"""Name of the table within a layer."""


@dataclass(frozen=True, kw_only=True)
class RelativePostNorm(PostNorm):
    """Layers of MPNet; tensors have BERT's names."""

    torch: ClassVar[str] = "pipeops.models.encoders.relative_post_norm"
    onnx: ClassVar[str] = "pipeops.onnx.encoders.relative_post_norm"
    heads: ClassVar[Units] = replace(PostNorm.heads, tables=(TABLE,))

    def layer_tensors(self, shape: "ModelShape", index: int) -> TensorShapes:
        """Those of BERT, and the table."""
        table = {f"{TABLE}.weight": (BUCKETS, shape.heads_per_layer[index])}
        return super().layer_tensors(shape, index) | table

    def layer_products(self, shape: "ModelShape", index: int) -> int:
        """Those of BERT: the table is looked up."""
        return super().layer_products(shape, index) - BUCKETS * shape.heads_per_layer[index]


@cache
def buckets(length: int) -> tuple[int, ...]:
    """Rows of the table for tokens that are ``1 - length`` to ``length - 1`` places after another."""
    return tuple(bucket(apart) for apart in range(1 - length, length))


def bucket(apart: int) -> int:
    """Row of the table for a token that is so many places after another; negative: before it."""
    side, distance = BUCKETS // 2, abs(apart)
    if distance >= EXACT:
        # EXACT + floor(2 log2(distance / EXACT)), in integers: two buckets each time the distance doubles.
        distance = min(EXACT + (distance**2 // EXACT**2).bit_length() - 1, side - 1)
    return distance + (side if apart > 0 else 0)
