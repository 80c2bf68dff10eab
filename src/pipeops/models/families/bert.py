"""BERT."""

from pipeops.models.families.declaration import Classifier, Family
from pipeops.models.families.post_norm import PostNorm, refuse_other_positions

BERT = Family(
    name="bert",
    prefix="Bert",
    layout=PostNorm,
    layout_of=lambda _: PostNorm(),
    pooler=True,
    segmented=True,
    # As in transformers' own sequence classification.
    starts_from="pooler.dense",
    classifier=Classifier(dense="bert.pooler.dense", projection="classifier"),
    refuses=refuse_other_positions,
)
