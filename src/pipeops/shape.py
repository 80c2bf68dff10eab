"""The shape of a model as plain data: what training, export and measuring agree on, without torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pipeops.errors import PipeOpsError

Family = Literal["roberta", "bert"]
MODEL_TYPE = "multi_exit"


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """An encoder with a classifier after some of its layers. Layers are counted from 1.

    The fields are the keys of the checkpoint's ``config.json``.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    head_size: int
    heads_per_layer: tuple[int, ...]
    """Attention heads left in each layer (all alike until pruned)."""
    ffn_per_layer: tuple[int, ...]
    """Width of each layer's feed-forward network."""
    exit_layers: tuple[int, ...]
    """Layers with a classifier, ascending; the last layer is always one of them."""
    num_labels: int
    max_position_embeddings: int
    """Rows of the position table (RoBERTa's includes the ``pad_token_id + 1`` rows it never uses)."""
    type_vocab_size: int
    pad_token_id: int
    sep_token_id: int
    layer_norm_eps: float
    hidden_act: str
    embedding_rank: int = 0
    """Width of the word embeddings, which a projection then widens to ``hidden_size``; 0: no projection."""

    @property
    def num_layers(self) -> int:
        """Number of encoder layers."""
        return len(self.heads_per_layer)

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads."""
        return self.pad_token_id + 1 if self.family == "roberta" else 0

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.max_position_embeddings - self.position_offset

    @property
    def has_exits(self) -> bool:
        """Whether a layer before the last has a classifier."""
        return len(self.exit_layers) > 1

    @property
    def parameters(self) -> int:
        """Number of weights, those of every exit included."""
        hidden, width = self.hidden_size, self.embedding_rank or self.hidden_size
        words = self.vocab_size * width + (width * hidden if self.embedding_rank else 0)
        embeddings = words + hidden * (self.max_position_embeddings + self.type_vocab_size + 2)
        layers = 0
        for heads, ffn in zip(self.heads_per_layer, self.ffn_per_layer, strict=True):
            attention = heads * self.head_size
            layers += 4 * hidden * attention + 3 * attention + hidden  # with biases
            layers += 2 * hidden * ffn + ffn + hidden
            layers += 4 * hidden  # two norms
        exits = len(self.exit_layers) * (hidden * (hidden + 1) + (hidden + 1) * self.num_labels)
        return embeddings + layers + exits

    def flops(self, length: int) -> tuple[int, ...]:
        """Floating-point operations of leaving at each exit, for one input of ``length`` tokens.

        Counted are the matrix products (a multiply-add is two operations) of the layers and exits that run.
        """
        hidden, costs = self.hidden_size, []
        total = 2 * length * self.embedding_rank * hidden
        for layer, (heads, ffn) in enumerate(
            zip(self.heads_per_layer, self.ffn_per_layer, strict=True), start=1
        ):
            attention = heads * self.head_size
            projections = 2 * length * hidden * (4 * attention + 2 * ffn)
            scores_and_context = 4 * length * length * attention
            total += projections + scores_and_context
            if layer in self.exit_layers:
                total += 2 * hidden * (hidden + self.num_labels)
                costs.append(total)
        return tuple(costs)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the shape from a parsed ``config.json``; other keys in it are ignored."""
        values = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**shape)

    @classmethod
    def from_checkpoint(cls, folder: Path) -> Self:
        """Read the shape of the checkpoint in ``folder``.

        Raises:
            PipeOpsError: there is no ``config.json``, or it is not one of ours.
        """
        path = folder / "config.json"
        try:
            return cls.from_config(json.loads(path.read_text()))
        except FileNotFoundError:
            raise PipeOpsError(f"{path}: not found; {folder} is not a checkpoint") from None
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise PipeOpsError(f"{path}: not a PipeOps checkpoint ({error}); train it again") from None
