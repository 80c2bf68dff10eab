"""Every family by its name, which is transformers' ``model_type``."""

from collections.abc import Mapping
from typing import Any

from pipeops.errors import PipeOpsError
from pipeops.models.families.bert import BERT
from pipeops.models.families.declaration import MODEL_TYPE, Family
from pipeops.models.families.distilbert import DISTILBERT
from pipeops.models.families.electra import ELECTRA
from pipeops.models.families.modernbert import MODERNBERT
from pipeops.models.families.mpnet import MPNET
from pipeops.models.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from pipeops.text import as_given, nearest_first

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, MPNET, MODERNBERT)
}
ACTIVATIONS = ("gelu", "relu")
"""Of FFNs, as transformers names them: those that can be exported."""


def supported_family(config: Mapping[str, Any], source: str) -> Family:
    """The family of a pretrained encoder.

    Args:
        config: its parsed ``config.json``.
        source: what it is called in messages.

    Raises:
        PipeOpsError: the family is not supported, or a setting of this encoder is not.
    """
    name = str(config.get("model_type"))
    if name == MODEL_TYPE:
        raise PipeOpsError(
            f"'{source}' is a model that PipeOps trained; name the pretrained encoder that it comes from"
        )
    if name not in FAMILIES:
        known = ", ".join(nearest_first(name, FAMILIES))
        raise PipeOpsError(f"'{source}' is a {name} model; PipeOps supports the families {known}")
    family = FAMILIES[name]
    if reason := _of_any_family(config, family) or family.refuses(config):
        raise PipeOpsError(f"'{source}' is a {name} model that is not supported: {reason}; choose another")
    return family


def _of_any_family(config: Mapping[str, Any], family: Family) -> str | None:
    """Why an encoder cannot be taken, whatever its family; None if it can."""
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            return f"{key} is true, so it is no encoder"
    key = family.keys.activation
    if (activation := config.get(key, "gelu")) not in ACTIVATIONS:
        return f"{key} is {as_given(activation)}, which cannot be exported; {' or '.join(ACTIVATIONS)} can"
    return None
