"""O: fine-tune the pretrained backbone, or take a classifier that somebody fine-tuned."""

import numpy as np
import torch

from pipeops.errors import PipeOpsError
from pipeops.models.backbones import load_backbone
from pipeops.models.classifiers import as_original
from pipeops.models.multi_exit import from_pretrained_backbone
from pipeops.operators.base import Context, Stage, Stages, Trainee, exits_loss
from pipeops.text import shortened


def finetune(context: Context) -> Stages:
    """The pretrained encoder with a new classifier after its last layer; or the classifier that is given.

    What is given is measured on the validation examples and otherwise left as it is.

    Raises:
        PipeOpsError: the classifier that is given has other classes than the data, or another form than ours.
    """
    if "classifier" in context.inputs:
        return [Stage(name="taking", prepare=lambda _: _taken(context), trains=False)]
    return [Stage(name="training", prepare=lambda _: _new(context))]


def _new(context: Context) -> Trainee:
    encoder = load_backbone(context.backbone)
    model = from_pretrained_backbone(
        encoder, sep_token_id=context.sep_token_id, labels=context.labels, pooling=context.exits.pooling
    )
    return Trainee(model=model, loss=exits_loss(context.exits.exit_loss))


def _taken(context: Context) -> Trainee:
    if context.exits.pooling != "first":
        raise PipeOpsError(
            f"model.pooling: {context.exits.pooling}, but a classifier sees the first token; set it to first"
        )
    model = as_original(
        context.inputs["classifier"], sep_token_id=context.sep_token_id, labels=context.labels
    )
    split = "validation" if "validation" in context.inputs else "training"
    right, counts = 0, np.zeros(len(context.labels), dtype=int)
    with torch.no_grad():
        for batch in context.batches(None, split=split):
            given = batch["labels"]
            answered = model.to(given.device)(**batch).logits.argmax(dim=-1)
            right += int((answered == given).sum())
            counts += np.bincount(given.cpu().numpy(), minlength=len(counts))
    accuracy, largest = right / counts.sum(), counts.max() / counts.sum()
    common = shortened(context.labels[int(counts.argmax())])
    print(f"O as it is given: {accuracy:.1%} of {counts.sum():,} {split} examples are right", flush=True)
    if accuracy <= largest:
        print(
            f"warning: always answering '{common}' is right in {largest:.1%}; do the names of the classes "
            "mean the same in classifier and data?",
            flush=True,
        )
    log = {"accuracy": accuracy, "examples": int(counts.sum()), "split": split}
    return Trainee(model=model, loss=exits_loss(context.exits.exit_loss), log=log)
