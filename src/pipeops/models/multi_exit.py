"""A RoBERTa or BERT encoder with a classifier after some or all of its layers.

The encoder is Hugging Face's own; ours are the classifiers and the widths, which may differ from layer to
layer once a model is pruned. A checkpoint's ``config.json`` holds both, so pruned and multi-exit models
reload with ``from_pretrained``, also through ``AutoModelForSequenceClassification``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from pipeops.models.shape import MODEL_TYPE, ModelShape
from pipeops.models.standardising import Standardisation
from pipeops.settings import Pooling

ENCODERS: Mapping[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "roberta": (RobertaConfig, RobertaModel),
    "bert": (BertConfig, BertModel),
}


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
            backbone: configuration of a RoBERTa or BERT encoder.
            sep_token_id: the token that ends a segment.
            labels: class names, in the order of their ids.
            pooling: what the classifier sees of the last layer.
        """
        layers, heads = backbone.num_hidden_layers, backbone.num_attention_heads
        copied = (
            "vocab_size hidden_size max_position_embeddings type_vocab_size pad_token_id layer_norm_eps "
            "hidden_act hidden_dropout_prob attention_probs_dropout_prob classifier_dropout initializer_range"
        )
        return cls(
            family=backbone.model_type,
            head_size=backbone.hidden_size // heads,
            heads_per_layer=[heads] * layers,
            ffn_per_layer=[backbone.intermediate_size] * layers,
            exit_layers=[layers],
            sep_token_id=sep_token_id,
            pooling=pooling,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            **{name: getattr(backbone, name) for name in copied.split()},
        )

    @classmethod
    def from_shape(cls, shape: ModelShape) -> Self:
        """Describe a model of this shape; what a shape does not say has its default."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(shape).items()}
        return cls(**values)

    def with_shape(self, **changes: Any) -> Self:
        """Copy with some of the fields replaced."""
        return type(self).from_dict(self.to_dict() | changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field, the number of classes included (the base class leaves that to ``id2label``)."""
        return super().to_dict() | {"num_labels": self.num_labels}

    def to_diff_dict(self) -> dict[str, Any]:
        """Every field: a checkpoint must be readable without this class's defaults."""
        return self.to_dict()


@dataclass
class MultiExitOutput(SequenceClassifierOutput):
    """Output of the model; ``logits`` are the last exit's, shape (batch, labels)."""

    exit_logits: tuple[Tensor, ...] | None = None
    """Logits of every exit, in the order of ``config.exit_layers``, each of shape (batch, labels)."""


class FactorisedEmbedding(nn.Module):
    """Word embeddings of a low rank: a narrow table and the projection that widens its rows."""

    def __init__(self, vocab_size: int, rank: int, hidden_size: int, *, padding_idx: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, rank, padding_idx=padding_idx)
        self.projection = nn.Linear(rank, hidden_size, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map ids of any shape to embeddings of shape (..., hidden)."""
        return self.projection(self.table(input_ids))


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


class FactorisedLinear(nn.Module):
    """A linear map of a low rank: one without bias to ``rank`` values, one with bias from there."""

    def __init__(self, inputs: int, outputs: int, *, rank: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, rank, bias=False)
        self.second = nn.Linear(rank, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., inputs) to (..., outputs)."""
        return self.second(self.first(x))


class ClassificationHead(nn.Module):
    """Classifier on a layer's output: pooling, dense, tanh, projection, dropout before each linear map."""

    def __init__(self, config: MultiExitConfig) -> None:
        super().__init__()
        dropout = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.pooling = config.pooling
        self.standardisation: Standardisation | None = None
        """Between pooling and ``dense`` while the exit is trained (:func:`standardise_exits`)."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        """Map hidden states, (batch, length, hidden), and their mask, (batch, length), to (batch, labels)."""
        x = pooled_states(hidden_states, attention_mask, self.pooling)
        if self.standardisation is not None:
            x = self.standardisation(x)
        x = torch.tanh(self.dense(self.dropout(x)))
        return self.out_proj(self.dropout(x))


def segment_ids(input_ids: Tensor, attention_mask: Tensor, *, sep_token_id: int) -> Tensor:
    """Segment of each token, 0 or 1, as a BERT tokenizer numbers them: 1 after the first separator.

    Deriving them keeps one input signature for both families, in training and in the exported graph.
    """
    separators = (input_ids == sep_token_id).long()
    seen_before = separators.cumsum(dim=1) - separators
    return seen_before.clamp(max=1) * attention_mask


class MultiExitForSequenceClassification(PreTrainedModel):
    """Encoder and exits; weights are ``backbone.*`` (Hugging Face's names) and ``exits.<layer>.*``."""

    config_class = MultiExitConfig
    base_model_prefix = "backbone"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: MultiExitConfig) -> None:
        super().__init__(config)
        self.backbone = _encoder(config)
        self.exits = nn.ModuleDict({str(layer): ClassificationHead(config) for layer in config.exit_layers})
        self.post_init()

    @property
    def layers(self) -> Sequence[Any]:
        """The encoder layers, Hugging Face's modules."""
        return self.backbone.encoder.layer

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
            token_type_ids: not used; they follow from ``input_ids`` (:func:`segment_ids`).
            labels: class ids, shape (batch,); with them the loss is the sum over the exits of the
                cross-entropies (Xin et al. 2022, 3.3.1), which for a single exit is plain fine-tuning.

        Returns:
            ``hidden_states`` holds the embedding output and each layer's output, (batch, length, hidden).
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        segments = None
        if self.config.family == "bert" and self.config.type_vocab_size > 1:
            segments = segment_ids(input_ids, attention_mask, sep_token_id=self.config.sep_token_id)
        hidden_states = self.backbone(
            input_ids, attention_mask=attention_mask, token_type_ids=segments, output_hidden_states=True
        ).hidden_states
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
    """Build Hugging Face's encoder, then narrow the layers that are pruned."""
    config_class, model_class = ENCODERS[config.family]
    full_heads = config.hidden_size // config.head_size
    encoder_config = config_class(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=full_heads,
        intermediate_size=max(config.ffn_per_layer),
        hidden_act=config.hidden_act,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        initializer_range=config.initializer_range,
        layer_norm_eps=config.layer_norm_eps,
        pad_token_id=config.pad_token_id,
        attn_implementation=config._attn_implementation or "sdpa",
    )
    encoder = model_class(encoder_config, add_pooling_layer=False)
    if config.embedding_rank:
        encoder.embeddings.word_embeddings = FactorisedEmbedding(
            config.vocab_size, config.embedding_rank, config.hidden_size, padding_idx=config.pad_token_id
        )
    for layer, heads, ffn in zip(
        encoder.encoder.layer, config.heads_per_layer, config.ffn_per_layer, strict=True
    ):
        _resize_layer(
            layer, hidden_size=config.hidden_size, attention_size=heads * config.head_size, ffn_size=ffn
        )
        if config.ffn_rank:
            layer.intermediate.dense = FactorisedLinear(config.hidden_size, ffn, rank=config.ffn_rank)
            layer.output.dense = FactorisedLinear(ffn, config.hidden_size, rank=config.ffn_rank)
    return encoder


def _resize_layer(layer: Any, *, hidden_size: int, attention_size: int, ffn_size: int) -> None:
    """Give an encoder layer new (uninitialised) linear maps where its attention or FFN width changes.

    Hugging Face's attention derives the number of heads from the projections' width, so the linear maps
    are all that depends on it.
    """
    attention = layer.attention.self
    if attention.query.out_features != attention_size:
        for name in ("query", "key", "value"):
            setattr(attention, name, nn.Linear(hidden_size, attention_size))
        layer.attention.output.dense = nn.Linear(attention_size, hidden_size)
    if layer.intermediate.dense.out_features != ffn_size:
        layer.intermediate.dense = nn.Linear(hidden_size, ffn_size)
        layer.output.dense = nn.Linear(ffn_size, hidden_size)


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
        backbone: a RoBERTa or BERT encoder. Where it has a pooler (BERT), the classifier's dense layer
            starts from it, as in Hugging Face's own sequence classification.
        sep_token_id: the token that ends a segment.
        labels: class names, in the order of their ids.
        layers: which layers (counted from 1) to keep, in order; None keeps all.
        pooling: what the classifier sees of the last layer.
    """
    config = MultiExitConfig.from_backbone(
        backbone.config, sep_token_id=sep_token_id, labels=labels, pooling=pooling
    )
    kept = list(range(1, config.num_hidden_layers + 1)) if layers is None else list(layers)
    config = config.with_shape(
        heads_per_layer=[config.heads_per_layer[layer - 1] for layer in kept],
        ffn_per_layer=[config.ffn_per_layer[layer - 1] for layer in kept],
        exit_layers=[len(kept)],
    )
    model = MultiExitForSequenceClassification(config)
    model.backbone.embeddings.load_state_dict(backbone.embeddings.state_dict())
    for target, source in zip(model.layers, kept, strict=True):
        target.load_state_dict(backbone.encoder.layer[source - 1].state_dict())
    if config.family == "bert" and backbone.pooler is not None:
        classifier = cast(ClassificationHead, model.exits[str(len(kept))])
        classifier.dense.load_state_dict(backbone.pooler.dense.state_dict())
    return model


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
