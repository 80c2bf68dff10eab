"""The shape of a model as plain data: what training, export and measuring agree on, without torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from pipeops.errors import PipeOpsError
from pipeops.reading import reading
from pipeops.settings import Pooling
from pipeops.text import as_given

Family = Literal["roberta", "bert"]
MODEL_TYPE = "multi_exit"
MOST_PARAMETERS = 2**33
"""More weights than any model that is studied has: a configuration with more is damaged."""
_NONE_OF_OURS, _AGAIN = "not a PipeOps checkpoint", "train it again"
INT8_SHARE = 0.26
"""Size of an int8 graph over that of the fp32 one; see docs/performance.md."""


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
    pooling: Pooling = "first"
    """What a classifier sees: the first token's state, or the mean over the tokens that are not padding."""
    ffn_rank: int = 0
    """Rank of the FFN's two matrices in every layer; 0: not factorised."""

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
    def encoder_parameters(self) -> int:
        """Number of weights without the exits' classifiers."""
        return encoder_parameters(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            head_size=self.head_size,
            heads_per_layer=self.heads_per_layer,
            ffn_per_layer=self.ffn_per_layer,
            position_rows=self.max_position_embeddings,
            segment_rows=self.type_vocab_size,
            embedding_rank=self.embedding_rank,
            ffn_rank=self.ffn_rank,
        )

    @property
    def parameters(self) -> int:
        """Number of weights, those of every exit included."""
        return self.encoder_parameters + len(self.exit_layers) * self._exit_parameters

    @property
    def exit_parameters(self) -> tuple[int, ...]:
        """Per exit: number of weights of the model that ends there, with this exit only."""
        return tuple(self.cut(layer).parameters for layer in self.exit_layers)

    def cut(self, layers: int) -> Self:
        """The first layers only, with one exit, at their end."""
        return replace(
            self,
            heads_per_layer=self.heads_per_layer[:layers],
            ffn_per_layer=self.ffn_per_layer[:layers],
            exit_layers=(layers,),
        )

    def with_all_exits(self) -> Self:
        """The same with an exit after every layer."""
        return replace(self, exit_layers=tuple(range(1, self.num_layers + 1)))

    def with_width(self, *, heads: int, ffn: int, rank: int) -> Self:
        """The same with other numbers of heads and FFN neurons, and another rank of the word embeddings."""
        return replace(
            self,
            heads_per_layer=(heads,) * self.num_layers,
            ffn_per_layer=(ffn,) * self.num_layers,
            embedding_rank=rank,
        )

    @property
    def _exit_parameters(self) -> int:
        """Number of weights of one classifier."""
        return self.hidden_size * (self.hidden_size + 1) + (self.hidden_size + 1) * self.num_labels

    def flops(self, length: int) -> tuple[int, ...]:
        """Floating-point operations of leaving at each exit, for one input of ``length`` tokens.

        Counted are the matrix products (a multiply-add is two operations) of the layers and exits that run.
        Pooling is none: a mean takes 2 * length * hidden operations, less than 1/1000 of a layer's.
        """
        hidden, costs = self.hidden_size, []
        total = 2 * length * self.embedding_rank * hidden
        for layer, (heads, ffn) in enumerate(
            zip(self.heads_per_layer, self.ffn_per_layer, strict=True), start=1
        ):
            attention = heads * self.head_size
            feed_forward = 2 * product_weights(hidden, ffn, rank=self.ffn_rank)
            projections = 2 * length * (4 * hidden * attention + feed_forward)
            scores_and_context = 4 * length * length * attention
            total += projections + scores_and_context
            if layer in self.exit_layers:
                total += 2 * hidden * (hidden + self.num_labels)
                costs.append(total)
        return tuple(costs)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelShape":
        """Read the shape from a parsed ``config.json``; other keys in it are ignored.

        Raises:
            ValueError: a value is missing, of another type, or makes no model.
        """
        values = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        try:
            shape = _adapter().validate_python(values)
        except ValidationError as error:
            found = error.errors()
            detail = next((one for one in found if one["type"] != "missing"), found[0])
            where = ".".join(map(str, detail["loc"]))
            raise ValueError(f"{where}: {detail['msg']} (got {as_given(detail['input'])})") from None
        if problem := shape.problem:
            raise ValueError(problem)
        return shape

    @property
    def problem(self) -> str:
        """What makes it no model; empty where it is one."""
        layers = self.num_layers
        if not layers or len(self.ffn_per_layer) != layers:
            return f"{layers} layers with heads and {len(self.ffn_per_layer)} with FFNs"
        exits = sorted(set(self.exit_layers))
        if list(self.exit_layers) != exits or exits[:1] < [1] or exits[-1:] != [layers]:
            return f"exit_layers: {as_given(self.exit_layers)} of {layers} layers"
        widths = (self.vocab_size, self.hidden_size, self.head_size, self.num_labels, self.type_vocab_size)
        if min(*widths, *self.heads_per_layer, *self.ffn_per_layer, self.max_length) < 1:
            return "a size below 1"
        if min(self.pad_token_id, self.sep_token_id, self.embedding_rank, self.ffn_rank) < 0:
            return "a number below 0"
        if not 0 <= self.layer_norm_eps < 1:
            return f"layer_norm_eps: {self.layer_norm_eps}"
        return f"{self.parameters:,} weights" if self.parameters > MOST_PARAMETERS else ""

    @staticmethod
    def pipeline_of(folder: Path) -> str:
        """The trained pipeline that made the checkpoint in ``folder``.

        Raises:
            PipeOpsError: there is no ``config.json``, or it names none.
        """
        pipeline = read_config(folder).get("pipeline")
        if not isinstance(pipeline, str) or not pipeline:
            raise PipeOpsError(f"{folder / 'config.json'}: names no pipeline; train it again")
        return pipeline

    @classmethod
    def from_checkpoint(cls, folder: Path) -> "ModelShape":
        """Read the shape of the checkpoint in ``folder``.

        Raises:
            PipeOpsError: there is no ``config.json``, or it is not one of ours.
        """
        config = read_config(folder)
        with reading(folder / "config.json", wrong=_NONE_OF_OURS, again=_AGAIN):
            return cls.from_config(config)


@cache
def _adapter() -> TypeAdapter[ModelShape]:
    return TypeAdapter(ModelShape)


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed ``config.json`` of a checkpoint of ours.

    Raises:
        PipeOpsError: there is none, or it is of another model.
    """
    path = folder / "config.json"
    with reading(path, absent=f"{folder} is not a checkpoint", wrong=_NONE_OF_OURS, again=_AGAIN):
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no object")
    if (kind := config.get("model_type", MODEL_TYPE)) != MODEL_TYPE:
        raise PipeOpsError(
            f"{path}: {_NONE_OF_OURS} but a {as_given(kind)} model; train O from it first: "
            "pipeops train O --backbone"
        )
    return config


def encoder_parameters(
    *,
    vocab_size: int,
    hidden_size: int,
    head_size: int,
    heads_per_layer: Sequence[int],
    ffn_per_layer: Sequence[int],
    position_rows: int,
    segment_rows: int,
    embedding_rank: int,
    ffn_rank: int = 0,
) -> int:
    """Number of weights of an encoder without classifiers; sizes as in :class:`ModelShape`."""
    words = vocab_size * hidden_size
    if embedding_rank:
        words = (vocab_size + hidden_size) * embedding_rank
    total = words + hidden_size * (position_rows + segment_rows + 2)  # a norm has two rows
    for heads, ffn in zip(heads_per_layer, ffn_per_layer, strict=True):
        attention = heads * head_size
        total += 4 * hidden_size * attention + 3 * attention + hidden_size  # with biases
        total += 2 * product_weights(hidden_size, ffn, rank=ffn_rank) + ffn + hidden_size
        total += 4 * hidden_size  # two norms
    return total


def product_weights(inputs: int, outputs: int, *, rank: int) -> int:
    """Number of a linear map's weights without its bias; ``rank`` 0: not factorised."""
    return rank * (inputs + outputs) if rank else inputs * outputs
