"""Checkpoints on disk: finished models, and where an interrupted training resumes."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeops.files import make_shareable
from pipeops.models.backbones import WEIGHTS
from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.models.shape import ModelShape
from pipeops.reading import reading

CHECKPOINT_COMPLETE = "trainer_state.json"
"""The last file that Trainer writes into a checkpoint."""


def load_model(folder: Path) -> MultiExitForSequenceClassification:
    """Load a trained checkpoint, in float32.

    Raises:
        PipeOpsError: its weights are missing or damaged.
    """
    again = f"delete {folder} and run again to train it anew"
    ModelShape.from_checkpoint(folder)
    with reading(folder / WEIGHTS, absent=again, wrong="not readable", again=again):
        (folder / WEIGHTS).open("rb").close()
        model, report = MultiExitForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        # The library makes up what is missing and says so at most.
        if lacking := sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}):
            raise ValueError(f"lacks {len(lacking)} tensors of its config.json, {lacking[0]} first")
    return model


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
    run = "run the workflow to make it"
    with reading(path, absent=run, again=run), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_first_process() -> bool:
    """Whether this process writes the results; of several that train one model, one does."""
    return os.environ.get("RANK", "0") == "0"
