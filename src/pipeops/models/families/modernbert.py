"""ModernBERT, and with it mmBERT."""

import math
from collections.abc import Mapping
from typing import Any

from pipeops.models.families.declaration import Classifier, Family, Head, Keys
from pipeops.models.families.pre_norm import Attention, PreNorm
from pipeops.text import as_given

_ATTENTION: Mapping[str, Attention] = {"full_attention": "global", "sliding_attention": "local"}
_EVERY = "global_attn_every_n_layers"


def _theta(config: Mapping[str, Any], kind: str, default: float) -> Any:
    given = (config.get("rope_parameters") or {}).get(kind) or {}
    return given.get("rope_theta", config.get(f"{_ATTENTION[kind]}_rope_theta", default))


def _layout(config: Mapping[str, Any]) -> PreNorm:
    """Read the layout as today's transformers writes it, or as that of ModernBERT's own checkpoints did."""
    kinds, layers = config.get("layer_types"), int(config["num_hidden_layers"])
    own = PreNorm.in_rhythm(layers, every=3 if kinds else config.get(_EVERY, 3))
    return PreNorm(
        attention=tuple(_ATTENTION[kind] for kind in kinds) if kinds else own.attention,
        window=int(config.get("local_attention", 2 * own.window)) // 2,
        global_theta=float(_theta(config, "full_attention", own.global_theta)),
        local_theta=float(_theta(config, "sliding_attention", own.local_theta)),
    )


def _refuses(config: Mapping[str, Any]) -> str | None:
    """Refuse biases, other kinds and rhythms of attention, and rotary frequencies that are scaled or none."""
    for key in ("attention_bias", "mlp_bias", "norm_bias"):
        if config.get(key):
            return f"{key} is true"
    kinds, layers = config.get("layer_types") or (), config.get("num_hidden_layers")
    for key, named in (("layer_types", kinds), ("rope_parameters", config.get("rope_parameters") or ())):
        for kind in named:
            if kind not in _ATTENTION:
                return f"{key} has '{kind}', where {' or '.join(_ATTENTION)} is known"
    if kinds and len(kinds) != layers:
        return f"layer_types has {len(kinds)} layers, num_hidden_layers is {layers}"
    if int(config.get("local_attention", 2)) < 2:
        return f"local_attention is {config['local_attention']}, less than 2"
    if not kinds and (type(every := config.get(_EVERY, 3)) is not int or every < 1):
        return f"{_EVERY} is {as_given(every)}, no number of layers"
    for kind in _ATTENTION:
        theta = _theta(config, kind, 1.0)
        if type(theta) not in (int, float) or not 0 < theta < math.inf:
            return f"rope_theta of {kind} is {as_given(theta)}, no positive number"
    if config.get("rope_scaling"):
        return "rope_scaling is set"
    for kind, given in (config.get("rope_parameters") or {}).items():
        if (rope := (given or {}).get("rope_type", "default")) != "default":
            return f"rope_parameters: rope_type of {kind} is '{rope}', not 'default'"
    return None


MODERNBERT = Family(
    name="modernbert",
    prefix="ModernBert",
    layout=PreNorm,
    layout_of=_layout,
    keys=Keys(
        segments="",
        activation="hidden_activation",
        norm_eps="norm_eps",
        dropout="mlp_dropout",
        attention_dropout="attention_dropout",
    ),
    pad_token_id=50283,
    norm_eps=1e-5,
    head=Head(activation="gelu", normed=True),
    classifier=Classifier(
        dense="head.dense",
        projection="classifier",
        norm="head.norm",
        wants={"classifier_pooling": "cls", "classifier_activation": "gelu"},
    ),
    refuses=_refuses,
)
