"""ELECTRA: BERT's layers over embeddings that may be narrower."""

from collections.abc import Mapping
from typing import Any

from pipeops.models.families.declaration import Classifier, Family, Head
from pipeops.models.families.post_norm import PostNorm, refuse_other_positions


def _layout(config: Mapping[str, Any]) -> PostNorm:
    size = int(config["embedding_size"])
    return PostNorm(embedding_size=0 if size == int(config["hidden_size"]) else size)


ELECTRA = Family(
    name="electra",
    prefix="Electra",
    layout=PostNorm,
    layout_of=_layout,
    segmented=True,
    head=Head(activation="gelu"),
    classifier=Classifier(dense="classifier.dense", projection="classifier.out_proj"),
    refuses=refuse_other_positions,
)
