"""Tokenised splits: made once per dataset and backbone, read by every training and measuring job."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.tasks import SPLITS, Task, load_split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Info:
    """What the tokenised splits of one dataset have in common (``info.json``)."""

    dataset: str
    labels: tuple[str, ...]
    pad_token_id: int
    sep_token_id: int
    max_length: int


@dataclass(frozen=True, kw_only=True)
class TokenisedSplit:
    """Examples as token ids, without padding."""

    input_ids: list[np.ndarray]
    """One int64 array per example, special tokens included."""
    labels: np.ndarray
    """Class ids, shape (examples,)."""

    def __len__(self) -> int:
        return len(self.input_ids)


def tokenise(
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    output: Path,
    *,
    glue: str,
    max_length: int,
    examples: dict[str, int | None],
) -> None:
    """Write ``<split>.parquet`` for both splits, then ``info.json``, into ``output``.

    Args:
        task: what to load.
        tokenizer: the backbone's.
        output: folder to write to.
        glue: see :func:`pipeops.tasks.load_split`.
        max_length: longer inputs are truncated, the longer sentence of a pair first.
        examples: per split how many examples to take, None for all.
    """
    for split in SPLITS:
        dataset = load_split(task, split, glue=glue, examples=examples[split])
        encoded = tokenizer(
            *(list(dataset[column]) for column in task.columns),
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        table = pa.table(
            {
                "input_ids": pa.array(encoded["input_ids"], type=pa.list_(pa.int32())),
                "label": pa.array(list(dataset["label"]), type=pa.int64()),
            }
        )
        with replaced(output / f"{split}.parquet") as path:
            pq.write_table(table, path)
    info = Info(
        dataset=task.name,
        labels=task.labels,
        pad_token_id=tokenizer.pad_token_id,
        sep_token_id=tokenizer.sep_token_id,
        max_length=max_length,
    )
    with replaced(output / "info.json") as path:
        path.write_text(json.dumps(asdict(info), indent=2) + "\n")


def load_info(folder: Path) -> Info:
    """Read ``info.json`` of a folder written by :func:`tokenise`."""
    values = json.loads((folder / "info.json").read_text())
    return Info(**values | {"labels": tuple(values["labels"])})


def load_tokenised(folder: Path, split: str) -> TokenisedSplit:
    """Read one split.

    Raises:
        PipeOpsError: the file is missing or damaged.
    """
    path = folder / f"{split}.parquet"
    try:
        table = pq.read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise PipeOpsError(f"{path}: not readable ({error}); delete {folder} and tokenise again") from None
    input_ids = [np.asarray(ids, dtype=np.int64) for ids in table["input_ids"].to_pylist()]
    return TokenisedSplit(input_ids=input_ids, labels=table["label"].to_numpy())


def pad(
    input_ids: Sequence[np.ndarray], *, pad_token_id: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pad examples on the right, to the longest of them or to ``length``.

    Returns:
        ``input_ids`` and ``attention_mask`` (1 for a token), both int64 of shape (examples, length).
    """
    lengths = np.array([len(ids) for ids in input_ids])
    width = length or int(lengths.max())
    mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
    padded = np.full((len(input_ids), width), pad_token_id, dtype=np.int64)
    padded[mask.astype(bool)] = np.concatenate(input_ids)
    return padded, mask
