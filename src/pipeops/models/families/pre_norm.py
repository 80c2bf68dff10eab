"""The layout of ModernBERT's layers: a norm before each part, rotary positions, a gated FFN, no biases.

Attention is global, over all tokens, or local, over those near by. Behind the last layer the encoder has one
more norm; an exit reads its layer's output through that norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pipeops.models.families.declaration import Layout, TensorShapes, Units, linear, norm, words

if TYPE_CHECKING:
    from pipeops.models.shape import ModelShape

Attention = Literal["global", "local"]
BLOCK_SPAN = 3
"""Blocks that a block of a long input attends to in local layers: itself and a neighbour to each side."""


@dataclass(frozen=True, kw_only=True)
class PreNorm(Layout):
    """Layers of ModernBERT; tensors have its names."""

    torch: ClassVar[str] = "pipeops.models.encoders.pre_norm"
    onnx: ClassVar[str] = "pipeops.onnx.encoders.pre_norm"
    layer: ClassVar[str] = "layers"
    words: ClassVar[str] = "embeddings.tok_embeddings"
    heads: ClassVar[Units] = Units(rows=("attn.Wqkv",), parts=3, columns="attn.Wo")
    neurons: ClassVar[Units] = Units(rows=("mlp.Wi",), parts=2, columns="mlp.Wo")

    attention: tuple[Attention, ...]
    """Of each layer."""
    window: int = 64
    """Tokens to each side that a local layer attends to."""
    global_theta: float = 160_000.0
    """Base of the rotary frequencies of global layers,"""
    local_theta: float = 10_000.0
    """and of local ones."""
    first_normed: bool = False
    """Whether the first layer norms what it attends to. An encoder's own first layer does not, as embeddings
    are normed; another keeps its norm when it becomes the first."""

    @classmethod
    def in_rhythm(cls, layers: int, *, every: int = 3) -> Self:
        """ModernBERT's own: the first of so many layers is global, the others are local."""
        return cls(attention=tuple("local" if index % every else "global" for index in range(layers)))

    def theta(self, attention: Attention) -> float:
        """Base of the rotary frequencies."""
        return self.global_theta if attention == "global" else self.local_theta

    def with_layers(self, kept: Sequence[int]) -> Self:
        """Each layer keeps its attention: every second layer of a rhythm of three has that rhythm again."""
        return type(self)(
            attention=tuple(self.attention[layer - 1] for layer in kept),
            window=self.window,
            global_theta=self.global_theta,
            local_theta=self.local_theta,
            first_normed=self.first_normed or kept[0] > 1,
        )

    def compared(self, index: int, length: int) -> int:
        """Local layers of exported models compare neighbouring blocks only; in PyTorch all is compared."""
        local = self.attention[index] == "local"
        return min(length, BLOCK_SPAN * self.window) if local else length

    def embedding_tensors(self, shape: "ModelShape") -> TensorShapes:
        """Words and their norm."""
        hidden = shape.hidden_size
        return {**words(self.words, shape, hidden), **norm("embeddings.norm", hidden, bias=False)}

    def layer_tensors(self, shape: "ModelShape", index: int) -> TensorShapes:
        """Attention and FFN, each after its norm."""
        hidden, rank, ffn = shape.hidden_size, shape.ffn_rank, shape.ffn_per_layer[index]
        attended = shape.heads_per_layer[index] * shape.head_size
        return {
            **(norm("attn_norm", hidden, bias=False) if index or self.first_normed else {}),
            **linear("attn.Wqkv", hidden, 3 * attended, bias=False),
            **linear("attn.Wo", attended, hidden, bias=False),
            **norm("mlp_norm", hidden, bias=False),
            **linear("mlp.Wi", hidden, 2 * ffn, rank=rank, bias=False),
            **linear("mlp.Wo", ffn, hidden, rank=rank, bias=False),
        }

    def last_tensors(self, shape: "ModelShape") -> TensorShapes:
        """The norm before every exit."""
        return norm("final_norm", shape.hidden_size, bias=False)
