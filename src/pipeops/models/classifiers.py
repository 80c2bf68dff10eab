"""Classifiers that somebody fine-tuned: fetched, checked, and taken over with their classes in our order."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from pipeops.errors import PipeOpsError
from pipeops.integrity import verify
from pipeops.models.backbones import LOADING, WEIGHTS, quiet_transformers, read_source, save_backbone
from pipeops.models.families.declaration import Family
from pipeops.models.families.registry import supported_family
from pipeops.models.foreign import refuse_fewer_weights, refuse_unsafe
from pipeops.models.multi_exit import (
    ClassificationHead,
    MultiExitForSequenceClassification,
    from_pretrained_backbone,
)
from pipeops.reading import reason
from pipeops.text import as_given, listed


def fetch_classifier(source: str, output: Path) -> None:
    """Bring a fine-tuned classifier and its tokenizer into ``output``.

    Args:
        source: a hub id or a folder.
        output: folder for ``config.json``, ``model.safetensors`` and the tokenizer's files.

    Raises:
        PipeOpsError: the source cannot be read, or is no classifier that can be taken over.
    """
    config = read_source(AutoConfig, source)
    _refuse_other_forms(config, supported_family(config.to_dict(), source), source)
    save_backbone(_load(source), read_source(AutoTokenizer, source), output)


def as_original(
    folder: Path, *, sep_token_id: int, labels: Sequence[str]
) -> MultiExitForSequenceClassification:
    """The same classifier as one of ours: the same logits, in the order of the data's classes.

    Args:
        folder: what :func:`fetch_classifier` left there.
        sep_token_id: the token that ends a segment.
        labels: the data's class names, in the order of their ids.

    Raises:
        PipeOpsError: its classes are not those of the data.
    """
    verify(folder / "config.json", folder / WEIGHTS, again=f"fetch the classifier into {folder} again")
    theirs = _load(str(folder))
    rows = class_rows(theirs.config.id2label, labels)
    model = from_pretrained_backbone(theirs.base_model, sep_token_id=sep_token_id, labels=labels)
    head = cast(ClassificationHead, model.exits[str(model.config.num_hidden_layers)])
    form = model.shape.declared.classifier
    dense, projection = (
        cast(nn.Linear, theirs.get_submodule(name)) for name in (form.dense, form.projection)
    )
    with torch.no_grad():
        head.dense.weight.copy_(dense.weight)
        head.dense.bias.zero_() if dense.bias is None else head.dense.bias.copy_(dense.bias)
        if form.norm:
            head.norm.load_state_dict(theirs.get_submodule(form.norm).state_dict())
        head.out_proj.weight.copy_(projection.weight[rows])
        head.out_proj.bias.copy_(projection.bias[rows])
    return model.eval()


def class_rows(id2label: Mapping[int, str], labels: Sequence[str]) -> list[int]:
    """The classifier's id of each of the data's classes.

    They are matched by name, whatever the case. Names that say nothing, ``LABEL_0`` and so on, stand for ids
    if the data's classes are the integers from 0 on.

    Args:
        id2label: the classifier's names by id.
        labels: the data's names, in the order of their ids.

    Raises:
        PipeOpsError: names are none, one side has classes that the other lacks, or two that differ in case
            only.
    """
    named = all(isinstance(name, str) for name in id2label.values())
    if not named or sorted(id2label) != list(range(len(id2label))):
        raise PipeOpsError(
            "model.finetuned: id2label of the classifier's config.json must name its classes by ids from 0 "
            f"on, and does not: {as_given(dict(id2label))}; mend it there"
        )
    names, integers = list(id2label.values()), [str(number) for number in range(len(labels))]
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in names) and set(names) != set(labels)
    if unnamed and list(labels) != integers:
        raise PipeOpsError(
            f"model.finetuned: the classifier's classes have no names ({listed(names)}) and the data's are "
            "no integers from 0 on; name them in id2label of its config.json"
        )
    theirs = {str(number) if unnamed else name.casefold(): number for number, name in id2label.items()}
    ours = [label.casefold() for label in labels]
    if len(theirs) < len(id2label) or len(set(ours)) < len(ours):
        raise PipeOpsError("model.finetuned: classes differ in upper and lower case only; rename one of them")
    missing = [label for label, name in zip(labels, ours, strict=True) if name not in theirs]
    if missing:
        raise PipeOpsError(
            f"model.finetuned: the classifier has no class {listed(missing)}; its classes are "
            f"{listed(names)}; rename the data's, or set finetuned: false to train it"
        )
    if extra := [id2label[number] for name, number in theirs.items() if name not in ours]:
        raise PipeOpsError(
            f"model.finetuned: the data have no class {listed(extra)}, which the classifier has; set "
            "finetuned: false to train it for the data's"
        )
    return [theirs[name] for name in ours]


def _refuse_other_forms(config: PreTrainedConfig, family: Family, source: str) -> None:
    """Refuse what our classifiers, with the family's head on the first token, cannot be."""
    expected = f"{family.prefix}ForSequenceClassification"
    differ = [key for key, value in family.classifier.wants.items() if getattr(config, key) != value]
    named = config.architectures or ["no architecture"]
    reason = ""
    if expected not in named:
        reason = f"its config.json names {named[0]}, not {expected}"
    elif config.problem_type not in (None, "single_label_classification"):
        reason = f"it is made for {config.problem_type}"
    elif config.num_labels < 2:
        reason = "it has one output, so it is a regression"
    elif differ:
        wanted = family.classifier.wants[differ[0]]
        reason = f"its {differ[0]} is {getattr(config, differ[0])!r}, not {wanted!r}"
    if reason:
        raise PipeOpsError(f"model.finetuned: '{source}' cannot be O: {reason}; set finetuned: false")


def _load(source: str) -> PreTrainedModel:
    quiet_transformers()
    refuse_unsafe(source)
    refuse_fewer_weights(source)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(source, **LOADING)
    except Exception as error:  # of damaged files the libraries raise anything
        raise PipeOpsError(
            f"model.backbone: '{source}' has no readable classifier ({reason(error)}); fetch it again"
        ) from None
    if missing := sorted(report["missing_keys"]):
        raise PipeOpsError(
            f"model.finetuned: '{source}' lacks {len(missing)} weights of a classifier, {missing[0]} first; "
            "set finetuned: false to train it"
        )
    return model
