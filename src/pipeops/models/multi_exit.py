"""An encoder with a classifier after some or all of its layers.

The encoder is Hugging Face's own; ours are the classifiers and the widths, which may differ from layer to
layer once a model is pruned. A checkpoint's ``config.json`` holds both, so pruned and multi-exit models
reload with ``from_pretrained``, also through ``AutoModelForSequenceClassification``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Self, cast

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput

from pipeops.models.architectures import architecture_of
from pipeops.models.encoders.factorised import FactorisedEmbedding, FactorisedLinear
from pipeops.models.families.declaration import EVERY
from pipeops.models.families.registry import FAMILIES
from pipeops.models.shape import MODEL_TYPE, ModelShape
from pipeops.models.standardising import Standardisation
from pipeops.settings import Pooling


class MultiExitConfig(PreTrainedConfig):
    """Configuration of the model; its keys are those of :class:`pipeops.models.shape.ModelShape`."""

    model_type = MODEL_TYPE

    family: str = "roberta"
    vocab_size: int = 50265
    hidden_size: int = 768
    head_size: int = 64
    heads_per_layer: list[int] = field(default_factory=lambda: [12] * 12)
    ffn_per_layer: list[int] = field(default_factory=lambda: [3072] * 12)
    exit_layers: list[int] = field(default_factory=lambda: [12])
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    pad_token_id: int = 1
    sep_token_id: int = 2
    layer_norm_eps: float = 1e-5
    hidden_act: str = "gelu"
    embedding_rank: int = 0
    ffn_rank: int = 0
    layout: dict[str, Any] = field(default_factory=dict)
    """What the layers have of their own; see ``models/families``."""
    pipeline: str = ""
    pooling: Pooling = "first"
    exits_standardised: bool = False
    """Whether exits before the last layer learned from standardised inputs. It changes no graph."""
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    initializer_range: float = 0.02

    @property
    def num_hidden_layers(self) -> int:
        """Number of encoder layers."""
        return len(self.heads_per_layer)

    @property
    def shape(self) -> ModelShape:
        """The same model as plain data."""
        return ModelShape.from_config(self.to_dict())

    @classmethod
    def from_backbone(
        cls,
        backbone: PreTrainedConfig,
        *,
        sep_token_id: int,
        labels: Sequence[str],
        pooling: Pooling = "first",
    ) -> Self:
        """Describe a pretrained encoder with one classifier, after the last layer.

        Args:
            backbone: configuration of a pretrained encoder.
            sep_token_id: the token that ends a segment.
            labels: class names, in the order of their ids.
            pooling: what the classifier sees of the last layer.
        """
        given = backbone.to_dict()
        architecture = architecture_of(given, backbone.model_type)
        keys = FAMILIES[architecture.family].keys
        shape = architecture.shape(num_labels=len(labels), sep_token_id=sep_token_id, pooling=pooling)
        described = cls.from_shape(shape).to_dict() | {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "hidden_dropout_prob": given[keys.dropout],
            "attention_probs_dropout_prob": given[keys.attention_dropout],
            "classifier_dropout": given[keys.classifier_dropout],
            "initializer_range": given["initializer_range"],
        }
        return cls.from_dict(described)

    @classmethod
    def from_shape(cls, shape: ModelShape) -> Self:
        """Describe a model of this shape; what a shape does not say has its default."""
        return cls(**_listed(shape.to_config()))

    def with_shape(self, **changes: Any) -> Self:
        """Copy with some of the fields replaced."""
        return type(self).from_dict(self.to_dict() | changes)

    def reshaped(self, shape: ModelShape) -> Self:
        """Copy with another shape."""
        return self.with_shape(**{"layout": {}} | _listed(shape.to_config()))

    def to_dict(self) -> dict[str, Any]:
        """Every field, the number of classes included (the base class leaves that to ``id2label``)."""
        return super().to_dict() | {"num_labels": self.num_labels}

    def to_diff_dict(self) -> dict[str, Any]:
        """Every field: a checkpoint must be readable without this class's defaults."""
        return self.to_dict()


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same as JSON has it, with lists for tuples."""
    return json.loads(json.dumps(values))


@dataclass
class MultiExitOutput(SequenceClassifierOutput):
    """Output of the model; ``logits`` are the last exit's, shape (batch, labels)."""

    exit_logits: tuple[Tensor, ...] | None = None
    """Logits of every exit, in the order of ``config.exit_layers``, each of shape (batch, labels)."""


def pooled_states(hidden_states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """What a classifier sees of a layer's output: the first token, or the mean of those that are no padding.

    Args:
        hidden_states: shape (batch, length, hidden).
        attention_mask: 1 for a token, 0 for padding, shape (batch, length).
        pooling: which of the two.

    Returns:
        Shape (batch, hidden).
    """
    if pooling == "first":
        return hidden_states[:, 0]
    kept = attention_mask.unsqueeze(-1).to(hidden_states.dtype)
    return (hidden_states * kept).sum(dim=1) / kept.sum(dim=1)


class ClassificationHead(nn.Module):
    """Classifier on a layer's output: pooling, dense, activation, projection, dropout before each linear map.

    The family says which activation, and whether a norm follows it.
    """

    def __init__(self, config: MultiExitConfig) -> None:
        super().__init__()
        dropout = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        declared = FAMILIES[config.family].head
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[declared.activation]
        if declared.normed:
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=False)
        self.normed = declared.normed
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.pooling = config.pooling
        self.standardisation: Standardisation | None = None
        """Between pooling and ``dense`` while the exit is trained (:func:`standardise_exits`)."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        """Map hidden states, (batch, length, hidden), and their mask, (batch, length), to (batch, labels)."""
        x = pooled_states(hidden_states, attention_mask, self.pooling)
        if self.standardisation is not None:
            x = self.standardisation(x)
        x = self.activation(self.dense(self.dropout(x)))
        if self.normed:
            x = self.norm(x)
        return self.out_proj(self.dropout(x))


class MultiExitForSequenceClassification(PreTrainedModel):
    """Encoder and exits; weights are ``backbone.*`` (Hugging Face's names) and ``exits.<layer>.*``."""

    config_class = MultiExitConfig
    base_model_prefix = "backbone"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: MultiExitConfig) -> None:
        super().__init__(config)
        self.shape = config.shape
        self._hidden_states = import_module(self.shape.layout.torch).hidden_states
        self.backbone = _encoder(config)
        self.exits = nn.ModuleDict({str(layer): ClassificationHead(config) for layer in config.exit_layers})
        self.post_init()

    @property
    def layers(self) -> Sequence[Any]:
        """The encoder layers, Hugging Face's modules."""
        return cast(Sequence[Any], self.backbone.get_submodule(self.shape.layout.layer))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,  # noqa: ARG002 - what a tokenizer returns must be accepted
        labels: Tensor | None = None,
    ) -> MultiExitOutput:
        """Run the encoder and every exit.

        Args:
            input_ids: token ids, shape (batch, length).
            attention_mask: 1 for a token, 0 for padding (on the right), shape (batch, length).
            token_type_ids: not used; segments follow from ``input_ids``.
            labels: class ids, shape (batch,); with them the loss is the sum over the exits of the
                cross-entropies (Xin et al. 2022, 3.3.1), which for a single exit is plain fine-tuning.

        Returns:
            ``hidden_states`` holds the embedding output and each layer's output as an exit reads it, (batch,
            length, hidden).
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden_states = self._hidden_states(self.backbone, self.shape, input_ids, attention_mask)
        if torch.compiler.is_compiling():
            # In one graph, exits that a loss leaves out would have gradients of zero, and decay by them.
            torch._dynamo.graph_break()
        exit_logits = tuple(
            head(hidden_states[int(layer)], attention_mask) for layer, head in self.exits.items()
        )
        loss = None
        if labels is not None:
            loss = torch.stack([F.cross_entropy(logits, labels) for logits in exit_logits]).sum()
        return MultiExitOutput(
            loss=loss, logits=exit_logits[-1], hidden_states=hidden_states, exit_logits=exit_logits
        )


def _encoder(config: MultiExitConfig) -> PreTrainedModel:
    """Build transformers' encoder, then narrow what is pruned or factorised."""
    shape = config.shape
    family, layout, run = shape.declared, shape.layout, import_module(shape.layout.torch)
    config_class = getattr(transformers, f"{family.runs_as}Config")
    model_class = getattr(transformers, f"{family.runs_as}Model")
    encoder_config = config_class(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.hidden_size // shape.head_size,
        intermediate_size=max(shape.ffn_per_layer),
        max_position_embeddings=shape.max_position_embeddings,
        initializer_range=config.initializer_range,
        pad_token_id=shape.pad_token_id,
        attn_implementation=config._attn_implementation or "sdpa",
        **run.encoder_settings(shape, config),
    )
    encoder = model_class(encoder_config, **({"add_pooling_layer": False} if family.pooler else {}))
    if shape.embedding_rank:
        words = FactorisedEmbedding(
            shape.vocab_size,
            shape.embedding_rank,
            layout.word_size(shape),
            padding_idx=shape.pad_token_id,
        )
        encoder.set_submodule(layout.words, words)
    for index, layer in enumerate(encoder.get_submodule(layout.layer)):
        sizes = layout.layer_tensors(replace(shape, ffn_rank=0), index)
        for name in (*layout.heads.maps, *layout.neurons.maps):
            outputs, inputs = sizes[f"{name}.weight"]
            # Attention derives the number of heads from the maps' width, so they are all that depends on it.
            if layer.get_submodule(name).weight.shape != (outputs, inputs):
                layer.set_submodule(name, nn.Linear(inputs, outputs, bias=f"{name}.bias" in sizes))
        for name in layout.neurons.maps if shape.ffn_rank else ():
            outputs, inputs = sizes[f"{name}.weight"]
            factors = FactorisedLinear(inputs, outputs, rank=shape.ffn_rank, bias=f"{name}.bias" in sizes)
            layer.set_submodule(name, factors)
    run.finish(encoder, shape)
    return encoder


def from_pretrained_backbone(
    backbone: PreTrainedModel,
    *,
    sep_token_id: int,
    labels: Sequence[str],
    layers: Sequence[int] | None = None,
    pooling: Pooling = "first",
) -> MultiExitForSequenceClassification:
    """Put a new classifier on a pretrained encoder.

    Args:
        backbone: a pretrained encoder of a family that is supported. The classifier's dense layer starts from
            the map that the family names, if there is one (BERT's pooler).
        sep_token_id: the token that ends a segment.
        labels: class names, in the order of their ids.
        layers: which layers (counted from 1) to keep, in order; None keeps all.
        pooling: what the classifier sees of the last layer.
    """
    config = MultiExitConfig.from_backbone(
        backbone.config, sep_token_id=sep_token_id, labels=labels, pooling=pooling
    )
    taken = list(layers or range(1, config.num_hidden_layers + 1))
    model = MultiExitForSequenceClassification(config.reshaped(config.shape.with_layers(taken)))
    family, theirs = model.shape.declared, backbone.state_dict()
    ours = model.backbone.state_dict()
    given = _in_our_layout(theirs, model.shape, taken)
    weights = {name: weight for name, weight in given.items() if name in ours}
    weights |= {name: torch.zeros_like(ours[name]) for name in family.zeros}
    model.backbone.load_state_dict(weights)
    if f"{family.starts_from}.weight" in theirs:
        classifier = cast(ClassificationHead, model.exits[str(len(taken))])
        classifier.dense.load_state_dict(backbone.get_submodule(family.starts_from).state_dict())
    return model


def _in_our_layout(
    theirs: Mapping[str, Tensor], shape: ModelShape, taken: Sequence[int]
) -> dict[str, Tensor]:
    """Give the weights of transformers' encoder our names, and the layers that are taken their numbers."""
    layer = re.compile(rf"{re.escape(shape.layout.layer)}\.(\d+|{re.escape(EVERY)})\.")
    weights = {}
    for their_name, weight in theirs.items():
        name = shape.declared.our_name(their_name)
        if not (found := layer.match(name)):
            weights[name] = weight
            continue
        for number, source in enumerate(taken):
            if found[1] in (EVERY, str(source - 1)):
                weights[f"{shape.layout.layer}.{number}.{name[found.end() :]}"] = weight
    return weights


def with_all_exits(model: MultiExitForSequenceClassification) -> MultiExitForSequenceClassification:
    """Copy with a classifier after every layer; those that existed keep their weights, the rest are new."""
    layers = list(range(1, model.config.num_hidden_layers + 1))
    extended = MultiExitForSequenceClassification(model.config.with_shape(exit_layers=layers))
    missing = extended.load_state_dict(model.state_dict(), strict=False)
    assert not missing.unexpected_keys
    return extended.to(model.device)


def standardise_exits(model: MultiExitForSequenceClassification, layers: Sequence[int]) -> None:
    """Put a new :class:`Standardisation` before the dense layer of the exits after these layers, in place."""
    for layer in layers:
        head = cast(ClassificationHead, model.exits[str(layer)])
        head.standardisation = Standardisation(model.config.hidden_size).to(model.device)
    model.config.exits_standardised = True


def fold_standardisation(model: MultiExitForSequenceClassification) -> None:
    """Fold each standardisation into the dense layer behind it, in place: same answers, no more operations.

    With ``x' = (x - mean) / deviation``, ``W x' + b`` is ``(W / deviation) x + (b - W mean / deviation)``.
    """
    for head in cast(Sequence[ClassificationHead], list(model.exits.values())):
        if head.standardisation is not None:
            head.standardisation.fold_into(head.dense)
            head.standardisation = None


AutoConfig.register(MODEL_TYPE, MultiExitConfig)
AutoModelForSequenceClassification.register(MultiExitConfig, MultiExitForSequenceClassification)
