"""Checkpoints on disk: finished models, and where an interrupted training resumes."""

import os
import shutil
from pathlib import Path

import torch

from pipeops.integrity import SUMS, is_whole
from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.models.shape import ModelShape
from pipeops.models.weights import WEIGHTS, checked_weights
from pipeops.progress import say
from pipeops.reading import reading


def load_model(folder: Path) -> MultiExitForSequenceClassification:
    """Load a trained checkpoint, in float32.

    Raises:
        PipeOpsError: its weights are missing or damaged.
    """
    again = f"delete {folder} and run again to train it anew"
    with checked_weights(folder / WEIGHTS, ModelShape.from_checkpoint(folder)):
        pass  # the library makes up what is missing, and takes the memory for it
    with reading(folder / WEIGHTS, wrong="not readable", again=again):
        return MultiExitForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )


def last_checkpoint(state: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a kill cut off, or is damaged, is removed."""
    by_step = sorted(state.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))
    while by_step:
        newest = by_step.pop()
        if usable(newest):
            return newest
    return None


def usable(folder: Path) -> bool:
    """Whether a folder of the state is as it was written; else it is removed, and what it held made again.

    By the process that writes: to others it may be what is being written.
    """
    if is_whole(folder):
        return True
    if is_first_process():
        if (folder / SUMS).exists():
            say(f"{folder}: damaged, so it is made again")
        shutil.rmtree(folder, ignore_errors=True)
    return False


def is_first_process() -> bool:
    """Whether this process writes the results; of several that train one model, one does."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train this model, by torchrun's word."""
    return int(os.environ.get("WORLD_SIZE", "1"))
