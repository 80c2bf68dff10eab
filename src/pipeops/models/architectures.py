"""What can be known of a backbone before anything is loaded: enough to refuse a study that cannot run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeops.errors import PipeOpsError
from pipeops.files import expanded
from pipeops.models.families.declaration import Layout
from pipeops.models.families.post_norm import PostNorm
from pipeops.models.families.pre_norm import PreNorm
from pipeops.models.families.registry import supported_family
from pipeops.models.families.relative_post_norm import RelativePostNorm
from pipeops.models.shape import ModelShape
from pipeops.reading import reading
from pipeops.settings import TINY, Pooling


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A pretrained encoder's family and sizes."""

    family: str
    """Name of a declaration in ``models/families``."""
    layers: int
    hidden_size: int
    heads: int
    ffn_size: int
    vocab_size: int
    position_rows: int
    """Rows of the position table; RoBERTa's has some that it never uses."""
    segment_rows: int
    max_length: int
    """Longest input in tokens."""
    pad_token_id: int = 1
    layer_norm_eps: float = 1e-5
    hidden_act: str = "gelu"
    layout: Layout = field(default_factory=PostNorm)
    """How the layers are built."""

    @property
    def word_size(self) -> int:
        """Width of the word embeddings."""
        return self.layout.word_size(self.shape(num_labels=2))

    def shape(self, *, num_labels: int, sep_token_id: int = 0, pooling: Pooling = "first") -> ModelShape:
        """The encoder with one classifier, after its last layer.

        Args:
            num_labels: number of classes.
            sep_token_id: the token that ends a segment; it has no part in any size.
            pooling: what the classifier sees of the last layer.
        """
        return ModelShape(
            family=self.family,
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            head_size=self.hidden_size // self.heads,
            heads_per_layer=(self.heads,) * self.layers,
            ffn_per_layer=(self.ffn_size,) * self.layers,
            exit_layers=(self.layers,),
            num_labels=num_labels,
            max_position_embeddings=self.position_rows,
            type_vocab_size=self.segment_rows,
            pad_token_id=self.pad_token_id,
            sep_token_id=sep_token_id,
            layer_norm_eps=self.layer_norm_eps,
            hidden_act=self.hidden_act,
            pooling=pooling,
            layout=self.layout,
        )

    def parameters(self, *, heads: int, ffn: int, rank: int = 0) -> int:
        """Number of the encoder's weights with ``heads`` heads and ``ffn`` FFN neurons per layer.

        Args:
            heads: of each layer.
            ffn: neurons of each layer.
            rank: of the word embeddings; 0: not factorised.
        """
        shape = self.shape(num_labels=2).with_width(heads=heads, ffn=ffn, rank=rank)
        return shape.encoder_parameters


TINY_ARCHITECTURE = Architecture(
    family="roberta",
    layers=6,
    hidden_size=128,
    heads=4,
    ffn_size=512,
    vocab_size=85,
    position_rows=66,
    segment_rows=1,
    max_length=64,
)
TINY_OF_OWN_TEXTS = "tiny, of own texts"
"""Name of the `tiny` backbone where it is pretrained on one's own texts; no hub or folder has it."""
TINY_OF_OWN_ARCHITECTURE = replace(TINY_ARCHITECTURE, vocab_size=2048, position_rows=258, max_length=256)

_ROBERTA_BASE = Architecture(
    family="roberta",
    layers=12,
    hidden_size=768,
    heads=12,
    ffn_size=3072,
    vocab_size=50265,
    position_rows=514,
    segment_rows=1,
    max_length=512,
)
_BERT_BASE = replace(
    _ROBERTA_BASE,
    family="bert",
    vocab_size=30522,
    position_rows=512,
    segment_rows=2,
    pad_token_id=0,
    layer_norm_eps=1e-12,
)
_MODERNBERT_BASE = Architecture(
    family="modernbert",
    layers=22,
    hidden_size=768,
    heads=12,
    ffn_size=1152,
    vocab_size=50368,
    position_rows=8192,
    segment_rows=1,
    max_length=8192,
    pad_token_id=50283,
    layout=PreNorm.in_rhythm(22),
)
KNOWN: Mapping[str, Architecture] = {
    TINY: TINY_ARCHITECTURE,
    TINY_OF_OWN_TEXTS: TINY_OF_OWN_ARCHITECTURE,
    "FacebookAI/roberta-base": _ROBERTA_BASE,
    "distilbert/distilroberta-base": replace(_ROBERTA_BASE, layers=6),
    "FacebookAI/roberta-large": replace(_ROBERTA_BASE, layers=24, hidden_size=1024, heads=16, ffn_size=4096),
    "FacebookAI/xlm-roberta-base": replace(_ROBERTA_BASE, family="xlm-roberta", vocab_size=250002),
    "almanach/camembert-base": replace(_ROBERTA_BASE, family="camembert", vocab_size=32005),
    "microsoft/mpnet-base": replace(
        _ROBERTA_BASE, family="mpnet", vocab_size=30527, layout=RelativePostNorm()
    ),
    "google-bert/bert-base-uncased": _BERT_BASE,
    "nreimers/MiniLM-L6-H384-uncased": replace(_BERT_BASE, layers=6, hidden_size=384, ffn_size=1536),
    "distilbert/distilbert-base-uncased": replace(_BERT_BASE, family="distilbert", layers=6, segment_rows=1),
    "google/electra-base-discriminator": replace(_BERT_BASE, family="electra"),
    "google/electra-small-discriminator": replace(
        _BERT_BASE,
        family="electra",
        hidden_size=256,
        heads=4,
        ffn_size=1024,
        layout=PostNorm(embedding_size=128),
    ),
    "answerdotai/ModernBERT-base": _MODERNBERT_BASE,
}
"""Backbones whose architecture is known without asking the hub."""
MOST_BYTES, MOST_LAYERS = 2**23, 1000
"""Of a ``config.json`` and in it: more than any encoder has."""


def architecture(source: str) -> Architecture | None:
    """The architecture of a backbone that is known or lies in a folder; None for another hub id.

    Raises:
        PipeOpsError: the folder holds no encoder of a supported family.
    """
    folder = expanded(source)
    if source == TINY or not folder.is_dir():
        return KNOWN.get(source)
    path, again = folder / "config.json", "fetch the model again"
    wrong = "no encoder's configuration"
    with reading(path, absent=f"'{source}' is no pretrained model", wrong=wrong, again=again):
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        return architecture_of(json.loads(path.read_text(encoding="utf-8")), source)


def known_architecture(source: str, key: str) -> Architecture:
    """The architecture of a backbone.

    Args:
        source: a hub id, a folder or ``tiny``.
        key: of the configuration, to be named where it is not known.

    Raises:
        PipeOpsError: it is a hub id whose architecture is not known here.
    """
    found = architecture(source)
    if found is None:
        raise PipeOpsError(f"{key}: the architecture of '{source}' is not known here; give its folder")
    return found


def architecture_of(config: Mapping[str, Any], source: str) -> Architecture:
    """The architecture of a pretrained encoder from its parsed ``config.json``.

    Args:
        config: of transformers.
        source: of the model, for messages.

    Raises:
        PipeOpsError: the family is not supported, or a setting of this encoder is not.
        ValueError: it is none that can be.
        KeyError: it lacks a size.
    """
    found = _from_config(config, source)
    if found.layers > MOST_LAYERS:  # before there is a number for each
        raise ValueError(f"{found.layers:,} layers")
    if problem := found.shape(num_labels=2).problem:
        raise ValueError(problem)
    return found


def _from_config(config: Mapping[str, Any], source: str) -> Architecture:
    family = supported_family(config, source)
    keys = family.keys
    pad_token_id = int(config.get("pad_token_id", family.pad_token_id))
    positions = int(config[keys.positions])
    return Architecture(
        family=family.name,
        layers=int(config[keys.layers]),
        hidden_size=int(config[keys.hidden_size]),
        heads=int(config[keys.heads]),
        ffn_size=int(config[keys.ffn_size]),
        vocab_size=int(config["vocab_size"]),
        position_rows=positions,
        segment_rows=int(config[keys.segments]) if keys.segments else 1,
        max_length=positions - family.reserved_positions(pad_token_id),
        pad_token_id=pad_token_id,
        layer_norm_eps=float(config.get(keys.norm_eps, family.norm_eps)),
        hidden_act=str(config.get(keys.activation, "gelu")),
        layout=family.layout_of(config),
    )


def other_family(source: str, family: str, expected: str) -> str | None:
    """Say that a student is of another family than the backbone; None where it is not."""
    if family != expected:
        return (
            f"model.student: '{source}' is a {family} model, the backbone a {expected} model; choose a "
            "student of its family"
        )
    return None
