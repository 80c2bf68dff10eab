"""What a family declares, and what a layout of layers does. All else is written against these."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    from pipeops.models.shape import ModelShape

TensorShapes = dict[str, tuple[int, ...]]
"""Shape of every tensor of a part of a checkpoint, by its name there."""
MODEL_TYPE = "multi_exit"
"""``model_type`` of our own checkpoints."""
BACKBONE = "backbone"
"""What the names of an encoder's tensors begin with in a checkpoint."""
EVERY = "*"
"""Stands for the number of every layer."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """Attention heads, or FFN neurons: the linear maps of a layer that they are in, by their names there."""

    rows: tuple[str, ...]
    """Maps whose outputs they are."""
    parts: int = 1
    """How many times each of those maps has all units, one after another."""
    columns: str
    """The map whose inputs they are. An input that is 0 is exactly a unit that is not there."""
    tables: tuple[str, ...] = ()
    """What is looked up, with a column for each unit, however many outputs of a map it is."""

    @property
    def maps(self) -> tuple[str, ...]:
        """Every map that the units are in."""
        return (*self.rows, self.columns)


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """How layers are built and where their tensors are. The fields of a subclass are kept in checkpoints."""

    torch: ClassVar[str]
    """Module that runs it in PyTorch: ``encoder_settings``, ``finish`` and ``hidden_states``."""
    onnx: ClassVar[str]
    """Module that emits it: ``shared``, ``embeddings``, ``layer`` and ``read``."""
    layer: ClassVar[str]
    """Name of the list of layers within the encoder."""
    words: ClassVar[str]
    """Name of the word embeddings within the encoder."""
    heads: ClassVar[Units]
    neurons: ClassVar[Units]

    @abstractmethod
    def embedding_tensors(self, shape: "ModelShape") -> TensorShapes:
        """Tensors before the first layer."""

    @abstractmethod
    def layer_tensors(self, shape: "ModelShape", index: int) -> TensorShapes:
        """Tensors of a layer, counted from 0."""

    def last_tensors(self, shape: "ModelShape") -> TensorShapes:  # noqa: ARG002
        """Tensors that belong to no single layer."""
        return {}

    def word_size(self, shape: "ModelShape") -> int:
        """Width of the word embeddings, before any projection that the whole embedding has."""
        return shape.hidden_size

    def embedding_products(self, shape: "ModelShape") -> int:
        """Number of weights of the matrices that a token is multiplied by before the first layer."""
        return shape.embedding_rank * self.word_size(shape)

    def layer_products(self, shape: "ModelShape", index: int) -> int:
        """Number of weights of the matrices that a token is multiplied by in a layer, counted from 0."""
        tensors = self.layer_tensors(shape, index).values()
        return sum(math.prod(dims) for dims in tensors if len(dims) == 2)

    def compared(self, index: int, length: int) -> int:  # noqa: ARG002
        """How many tokens each of ``length`` tokens is compared with in a layer, counted from 0."""
        return length

    def with_layers(self, kept: Sequence[int]) -> Self:  # noqa: ARG002
        """The layout of a model that has these layers only, counted from 1, ascending."""
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what a checkpoint's ``config.json`` has of it."""
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Fields that are not what they are unless told otherwise; a checkpoint keeps them."""
        defaults = {name: field.default for name, field in self.__dataclass_fields__.items()}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Names of an encoder's sizes and settings in its ``config.json``; empty where it has none."""

    layers: str = "num_hidden_layers"
    hidden_size: str = "hidden_size"
    heads: str = "num_attention_heads"
    ffn_size: str = "intermediate_size"
    positions: str = "max_position_embeddings"
    segments: str = "type_vocab_size"
    activation: str = "hidden_act"
    norm_eps: str = "layer_norm_eps"
    dropout: str = "hidden_dropout_prob"
    attention_dropout: str = "attention_probs_dropout_prob"
    classifier_dropout: str = "classifier_dropout"


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a classifier after a layer is: dense, activation, a norm or none, projection."""

    activation: Literal["tanh", "relu", "gelu"] = "tanh"
    normed: bool = False
    """Whether what is activated is normed, without a bias, before the projection."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Where the classifier of transformers' ``...ForSequenceClassification`` has its parts."""

    dense: str
    projection: str
    norm: str = ""
    """Empty: it has none."""
    wants: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Settings that ours has, by their names in ``config.json``."""


def _nothing(_: Mapping[str, Any]) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of pretrained encoders."""

    name: str
    """Its ``model_type`` in a ``config.json``."""
    prefix: str
    """Of its classes in transformers: ``Bert`` of ``BertForSequenceClassification``."""
    encoder: str = ""
    """Prefix of the class of transformers that runs our checkpoints; empty: its own."""
    pooler: bool = False
    """Whether that class makes a pooler unless told not to."""
    layout: type[Layout]
    layout_of: Callable[[Mapping[str, Any]], Layout]
    """The layout that a pretrained encoder's ``config.json`` asks for."""
    keys: Keys = Keys()
    pad_token_id: int = 0
    """Where ``config.json`` does not say."""
    norm_eps: float = 1e-12
    """Where ``config.json`` does not say."""
    reserves_positions: bool = False
    """Whether the position table begins with ``pad_token_id + 1`` rows that no token reads."""
    segmented: bool = False
    """Whether the second text of a pair is embedded as a second segment."""
    head: Head = Head()
    starts_from: str = ""
    """Map of transformers' encoder that a new classifier's dense layer starts from; empty: random weights."""
    classifier: Classifier
    renamed: tuple[tuple[str, str], ...] = ()
    """Regular expressions of transformers' tensor names, each with the name in our layout. A name with
    ``EVERY`` for a layer's number is that of a tensor of which every layer has a copy."""
    zeros: tuple[str, ...] = ()
    """Tensors of our layout that the family does not have, and that are zeros then."""
    refuses: Callable[[Mapping[str, Any]], str | None] = _nothing
    """What of a ``config.json`` is not supported, and the remedy; None where all is."""

    @property
    def runs_as(self) -> str:
        """Prefix of the class of transformers that runs our checkpoints."""
        return self.encoder or self.prefix

    def our_name(self, name: str) -> str:
        """The name in our layout of a tensor of transformers' encoder."""
        for pattern, ours in self.renamed:
            name = re.sub(pattern, ours, name)
        return name

    def reserved_positions(self, pad_token_id: int) -> int:
        """Rows of the position table before the one that the first token reads."""
        return pad_token_id + 1 if self.reserves_positions else 0


def words(name: str, shape: "ModelShape", width: int) -> TensorShapes:
    """Word embeddings of this width; where they are factorised, a narrow table and a projection."""
    if not shape.embedding_rank:
        return {f"{name}.weight": (shape.vocab_size, width)}
    return {
        f"{name}.table.weight": (shape.vocab_size, shape.embedding_rank),
        f"{name}.projection.weight": (width, shape.embedding_rank),
    }


def linear(name: str, inputs: int, outputs: int, *, rank: int = 0, bias: bool = True) -> TensorShapes:
    """A linear map, or the two of its factors."""
    if rank:
        return {f"{name}.first.weight": (rank, inputs), **linear(f"{name}.second", rank, outputs, bias=bias)}
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, size: int, *, bias: bool = True) -> TensorShapes:
    """A layer norm."""
    return {f"{name}.{kind}": (size,) for kind in (("weight", "bias") if bias else ("weight",))}
