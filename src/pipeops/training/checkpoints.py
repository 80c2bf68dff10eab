"""Checkpoints on disk: finished models, and where an interrupted training resumes."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from pipeops.errors import PipeOpsError
from pipeops.files import make_shareable
from pipeops.models.backbones import WEIGHTS
from pipeops.models.multi_exit import MultiExitForSequenceClassification

CHECKPOINT_COMPLETE = "trainer_state.json"
"""The last file that Trainer writes into a checkpoint."""


def load_model(folder: Path) -> MultiExitForSequenceClassification:
    """Load a trained checkpoint, in float32.

    Raises:
        PipeOpsError: its weights are missing or damaged.
    """
    try:
        return MultiExitForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PipeOpsError(
            f"{folder / WEIGHTS}: not readable ({reason}); delete {folder} and run again to train it anew"
        ) from None


def last_checkpoint(state: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a kill cut off is removed."""
    complete = {}
    for folder in state.glob("checkpoint-*"):
        if (folder / CHECKPOINT_COMPLETE).exists():
            complete[int(folder.name.removeprefix("checkpoint-"))] = folder
        else:
            shutil.rmtree(folder)
    return complete[max(complete)] if complete else None


@contextmanager
def written_last(output: Path) -> Iterator[Path]:
    """Yield a folder beside ``output`` to write into, then move its files in; the weights come last."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        folder = Path(temporary)
        yield folder
        make_shareable(folder / WEIGHTS)
        files = sorted(folder.iterdir(), key=lambda path: path.name == WEIGHTS)
        for path in files:
            path.replace(output / path.name)


def digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        PipeOpsError: it is missing.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise PipeOpsError(f"{path}: not found; run the workflow to make it") from None


def is_first_process() -> bool:
    """Whether this process writes the results; of several that train one model, one does."""
    return os.environ.get("RANK", "0") == "0"
