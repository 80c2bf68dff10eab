"""Checkpoints on disk: finished models, and where an interrupted training resumes."""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from pipeops.errors import PipeOpsError
from pipeops.integrity import SUMS, is_whole, note_unsealed, verify
from pipeops.models.backbones import WEIGHTS
from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.progress import say


def load_model(folder: Path) -> MultiExitForSequenceClassification:
    """Load a trained checkpoint, in float32.

    Raises:
        PipeOpsError: its configuration or weights are missing or damaged.
    """
    again = f"delete {folder} and run again to train it anew"
    whole = verify(folder / "config.json", folder / WEIGHTS, again=again)
    try:
        model = MultiExitForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PipeOpsError(f"{folder / WEIGHTS}: not readable ({reason}); {again}") from None
    if not whole:
        note_unsealed(folder / WEIGHTS)
    return model


def last_checkpoint(state: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a kill cut off, or is damaged, is removed."""
    by_step = sorted(state.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))
    while by_step:
        newest = by_step.pop()
        if usable(newest):
            return newest
    return None


def usable(folder: Path) -> bool:
    """Whether a folder of the state is as it was written; else it is removed, and what it held made again."""
    if is_whole(folder):
        return True
    if (folder / SUMS).exists():
        say(f"{folder}: damaged, so it is made again")
    shutil.rmtree(folder, ignore_errors=True)
    return False


def is_first_process() -> bool:
    """Whether this process writes the results; of several that train one model, one does."""
    return os.environ.get("RANK", "0") == "0"
