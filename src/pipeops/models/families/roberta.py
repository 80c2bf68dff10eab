"""RoBERTa, and the encoders that are one under another name."""

from dataclasses import replace

from pipeops.models.families.declaration import Classifier, Family
from pipeops.models.families.post_norm import PostNorm, refuse_other_positions

ROBERTA = Family(
    name="roberta",
    prefix="Roberta",
    layout=PostNorm,
    layout_of=lambda _: PostNorm(),
    pooler=True,
    pad_token_id=1,
    reserves_positions=True,
    classifier=Classifier(dense="classifier.dense", projection="classifier.out_proj"),
    refuses=refuse_other_positions,
)
XLM_ROBERTA = replace(ROBERTA, name="xlm-roberta", prefix="XLMRoberta", encoder="Roberta")
CAMEMBERT = replace(ROBERTA, name="camembert", prefix="Camembert", encoder="Roberta")
