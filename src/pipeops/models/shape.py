"""The shape of a model as plain data: what training, export and measuring agree on, without torch."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from pipeops.errors import PipeOpsError
from pipeops.models.families.declaration import (
    BACKBONE,
    MODEL_TYPE,
    Family,
    Layout,
    TensorShapes,
    linear,
    norm,
)
from pipeops.models.families.post_norm import PostNorm
from pipeops.models.families.registry import FAMILIES
from pipeops.reading import reading
from pipeops.settings import Pooling
from pipeops.text import as_given

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

    family: str
    """Name of a declaration in ``models/families``."""
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
    """Rank of the FFN's matrices in every layer; 0: not factorised."""
    layout: Layout = field(default_factory=PostNorm)
    """How the layers are built."""

    def __post_init__(self) -> None:
        """Refuse a family that is not known, and another's layers.

        Raises:
            ValueError: it is one of the two.
        """
        if self.family not in FAMILIES:
            raise ValueError(f"family: '{self.family}' is not one of {', '.join(FAMILIES)}")
        if type(self.layout) is not self.declared.layout:
            raise ValueError(f"layout: {type(self.layout).__name__} is not that of {self.family}")

    @property
    def declared(self) -> Family:
        """The declaration of the family."""
        return FAMILIES[self.family]

    @property
    def segmented(self) -> bool:
        """Whether the second text of a pair is embedded as a second segment."""
        return self.declared.segmented and self.type_vocab_size > 1

    @property
    def num_layers(self) -> int:
        """Number of encoder layers."""
        return len(self.heads_per_layer)

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads."""
        return self.declared.reserved_positions(self.pad_token_id)

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
        return _count(encoder_tensors(self).values())

    @property
    def parameters(self) -> int:
        """Number of weights, those of every exit included."""
        return _count(tensor_shapes(self).values())

    @property
    def exit_parameters(self) -> tuple[int, ...]:
        """Per exit: number of weights of the model that ends there, with this exit only."""
        return tuple(self.cut(layer).parameters for layer in self.exit_layers)

    def cut(self, layers: int) -> Self:
        """The first layers only, with one exit, at their end."""
        return self.with_layers(range(1, layers + 1))

    def with_layers(self, kept: Sequence[int]) -> Self:
        """These layers only, counted from 1, ascending, with one exit, at their end."""
        return replace(
            self,
            heads_per_layer=tuple(self.heads_per_layer[layer - 1] for layer in kept),
            ffn_per_layer=tuple(self.ffn_per_layer[layer - 1] for layer in kept),
            exit_layers=(len(kept),),
            layout=self.layout.with_layers(kept),
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

    def flops(self, length: int) -> tuple[int, ...]:
        """Floating-point operations of leaving at each exit, for one input of ``length`` tokens.

        Counted are the matrix products (a multiply-add is two operations) of the layers and exits that run.
        Pooling is none: a mean takes 2 * length * hidden operations, less than 1/1000 of a layer's.
        """
        hidden, costs = self.hidden_size, []
        total = 2 * length * self.layout.embedding_products(self)
        for layer, heads in enumerate(self.heads_per_layer, start=1):
            compared = self.layout.compared(layer - 1, length)
            scores_and_context = 4 * length * compared * heads * self.head_size
            total += 2 * length * self._products[layer - 1] + scores_and_context
            if layer in self.exit_layers:
                total += 2 * hidden * (hidden + self.num_labels)
                costs.append(total)
        return tuple(costs)

    @cached_property
    def _products(self) -> tuple[int, ...]:
        """Per layer: number of weights of the matrices that every token is multiplied by."""
        return tuple(self.layout.layer_products(self, index) for index in range(self.num_layers))

    def to_config(self) -> dict[str, Any]:
        """The keys of ``config.json``; the layout is left out where it has nothing of its own."""
        values = {name: value for name, value in asdict(self).items() if name != "layout"}
        layout = self.layout.to_dict()
        return values | ({"layout": layout} if layout else {})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelShape":
        """Read the shape from a parsed ``config.json``; other keys in it are ignored.

        Raises:
            ValueError: a value is missing, of another type, or makes no model.
        """
        values = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        if (family := FAMILIES.get(str(values.get("family")))) is None:
            raise ValueError(f"family: {as_given(values.get('family'))} is not one of {', '.join(FAMILIES)}")
        try:
            values["layout"] = _adapter(family.layout).validate_python(values.get("layout") or {})
            shape = _adapter(cls).validate_python(values)  # type: ignore[arg-type]
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
        if self.pad_token_id >= self.vocab_size:
            return f"pad_token_id: {self.pad_token_id} of {self.vocab_size} tokens"
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
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


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


def alternate_layers(layers: int) -> list[int]:
    """The layers that an ``alternate`` student of a backbone takes, counted from 1: every second one."""
    return list(range(2, layers + 1, 2))


def tensor_shapes(shape: ModelShape) -> TensorShapes:
    """Name and shape of every tensor in the checkpoint of a model (all float32)."""
    shapes = encoder_tensors(shape)
    hidden = shape.hidden_size
    for k in shape.exit_layers:
        shapes |= linear(f"exits.{k}.dense", hidden, hidden)
        if shape.declared.head.normed:
            shapes |= norm(f"exits.{k}.norm", hidden, bias=False)
        shapes |= linear(f"exits.{k}.out_proj", hidden, shape.num_labels)
    return shapes


def encoder_tensors(shape: ModelShape) -> TensorShapes:
    """The same without the exits' classifiers."""
    layout = shape.layout
    named = dict(layout.embedding_tensors(shape))
    for index in range(shape.num_layers):
        of_layer = layout.layer_tensors(shape, index)
        named |= {f"{layout.layer}.{index}.{name}": dims for name, dims in of_layer.items()}
    named |= layout.last_tensors(shape)
    return {f"{BACKBONE}.{name}": dims for name, dims in named.items()}


def is_norm(name: str, dims: tuple[int, ...]) -> bool:
    """Whether a tensor is the scale of a norm, which is near 1 before training."""
    return len(dims) == 1 and name.endswith(".weight")


def _count(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(dims) for dims in shapes)
