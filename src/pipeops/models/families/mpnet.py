"""MPNet: RoBERTa's layers and positions, and biases for how far apart two tokens are."""

from collections.abc import Mapping
from typing import Any

from pipeops.models.families.declaration import EVERY, Classifier, Family, Keys
from pipeops.models.families.relative_post_norm import BUCKETS, TABLE, RelativePostNorm

_FIXED = {"relative_attention_num_buckets": BUCKETS, "pad_token_id": 1}
"""Settings that transformers' encoder has in its code, whatever ``config.json`` says."""


def _refuses(config: Mapping[str, Any]) -> str | None:
    for key, value in _FIXED.items():
        if (given := config.get(key, value)) != value:
            return f"{key} is {given}, not {value}"
    return None


MPNET = Family(
    name="mpnet",
    prefix="MPNet",
    encoder="Roberta",
    pooler=True,
    layout=RelativePostNorm,
    layout_of=lambda _: RelativePostNorm(),
    keys=Keys(segments="", classifier_dropout="hidden_dropout_prob"),
    pad_token_id=1,
    reserves_positions=True,
    classifier=Classifier(dense="classifier.dense", projection="classifier.out_proj"),
    renamed=(
        (r"\.attention\.attn\.q\.", ".attention.self.query."),
        (r"\.attention\.attn\.k\.", ".attention.self.key."),
        (r"\.attention\.attn\.v\.", ".attention.self.value."),
        (r"\.attention\.attn\.o\.", ".attention.output.dense."),
        (r"\.attention\.LayerNorm\.", ".attention.output.LayerNorm."),
        (r"^encoder\.relative_attention_bias\.", f"encoder.layer.{EVERY}.{TABLE}."),
    ),
    # One segment for all tokens, which says nothing.
    zeros=("embeddings.token_type_embeddings.weight",),
    refuses=_refuses,
)
