"""The layout of BERT's layers: learned positions, full attention, an FFN, a norm after each of the two."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeops.models.families.declaration import Layout, TensorShapes, Units, linear, norm, words

if TYPE_CHECKING:
    from pipeops.models.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class PostNorm(Layout):
    """Layers of BERT; tensors have BERT's names."""

    torch: ClassVar[str] = "pipeops.models.encoders.post_norm"
    onnx: ClassVar[str] = "pipeops.onnx.encoders.post_norm"
    layer: ClassVar[str] = "encoder.layer"
    words: ClassVar[str] = "embeddings.word_embeddings"
    heads: ClassVar[Units] = Units(
        rows=("attention.self.query", "attention.self.key", "attention.self.value"),
        columns="attention.output.dense",
    )
    neurons: ClassVar[Units] = Units(rows=("intermediate.dense",), columns="output.dense")

    embedding_size: int = 0
    """Width of the embeddings, which a linear map widens to the hidden size; 0: they have the hidden size."""

    def word_size(self, shape: "ModelShape") -> int:
        """Width of the word embeddings."""
        return self.embedding_size or shape.hidden_size

    def embedding_products(self, shape: "ModelShape") -> int:
        """Those of the factors of the word embeddings, and of the projection."""
        return super().embedding_products(shape) + self.embedding_size * shape.hidden_size

    def embedding_tensors(self, shape: "ModelShape") -> TensorShapes:
        """Words, positions, segments, their norm, and the projection of those that are narrower."""
        width = self.word_size(shape)
        shapes = {
            **words(self.words, shape, width),
            "embeddings.position_embeddings.weight": (shape.max_position_embeddings, width),
            "embeddings.token_type_embeddings.weight": (shape.type_vocab_size, width),
            **norm("embeddings.LayerNorm", width),
        }
        if self.embedding_size:
            shapes |= linear("embeddings_project", width, shape.hidden_size)
        return shapes

    def layer_tensors(self, shape: "ModelShape", index: int) -> TensorShapes:
        """Attention and FFN, each with its norm."""
        hidden, rank, ffn = shape.hidden_size, shape.ffn_rank, shape.ffn_per_layer[index]
        attended = shape.heads_per_layer[index] * shape.head_size
        shapes: TensorShapes = {}
        for name in self.heads.rows:
            shapes |= linear(name, hidden, attended)
        return {
            **shapes,
            **linear(self.heads.columns, attended, hidden),
            **norm("attention.output.LayerNorm", hidden),
            **linear("intermediate.dense", hidden, ffn, rank=rank),
            **linear("output.dense", ffn, hidden, rank=rank),
            **norm("output.LayerNorm", hidden),
        }


def refuse_other_positions(config: Mapping[str, Any]) -> str | None:
    """Refuse the relative positions that some BERT encoders have."""
    kind = config.get("position_embedding_type", "absolute")
    return None if kind in (None, "absolute") else f"position_embedding_type is '{kind}', not 'absolute'"
