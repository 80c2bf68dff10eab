"""Tokenised splits: made once per dataset and backbone, read by every training and measuring job."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeops.data.tasks import Task, load_split
from pipeops.errors import PipeOpsError
from pipeops.files import replaced

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_METADATA = "pipeops"


@dataclass(frozen=True, kw_only=True)
class TokenisedSplit:
    """Examples as token ids, without padding, and what is needed to use them."""

    input_ids: list[np.ndarray]
    """One int64 array per example, special tokens included."""
    label_ids: np.ndarray
    """Class ids, shape (examples,)."""
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    pad_token_id: int
    sep_token_id: int
    max_length: int
    """Longest input in tokens; without dynamic length every input is padded to it."""

    def __len__(self) -> int:
        return len(self.input_ids)

    def padded(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One example padded to ``max_length``: ids and attention mask, each of shape (1, max_length)."""
        return pad([self.input_ids[index]], pad_token_id=self.pad_token_id, length=self.max_length)


def tokenise(
    task: Task,
    split: str,
    tokenizer: "PreTrainedTokenizerBase",
    output: Path,
    *,
    glue: str,
    max_length: int,
    examples: int | None,
) -> None:
    """Load one split of a task and write it, tokenised, as a Parquet file.

    Args:
        task: what to load.
        split: ``train`` or ``validation``.
        tokenizer: the backbone's.
        output: the file to write.
        glue: see :func:`pipeops.data.tasks.load_split`.
        max_length: longer inputs are truncated, the longer sentence of a pair first.
        examples: how many examples to take, None for all.

    Raises:
        PipeOpsError: the split cannot be loaded.
    """
    dataset = load_split(task, split, glue=glue, examples=examples)
    encoded = tokenizer(
        *(list(dataset[column]) for column in task.columns),
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    columns = {
        "input_ids": pa.array(encoded["input_ids"], type=pa.list_(pa.int32())),
        "label": pa.array(list(dataset["label"]), type=pa.int64()),
    }
    about = {
        "labels": task.labels,
        "pad_token_id": tokenizer.pad_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "max_length": max_length,
    }
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(about)})
    with replaced(output) as path:
        pq.write_table(table, path)


def load_tokenised(path: Path) -> TokenisedSplit:
    """Read a file that :func:`tokenise` wrote.

    Raises:
        PipeOpsError: the file is missing or damaged.
    """
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[_METADATA.encode()])
    except FileNotFoundError:
        raise PipeOpsError(f"{path}: not found; tokenise it first") from None
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise PipeOpsError(f"{path}: not readable ({error}); delete it and tokenise again") from None
    return TokenisedSplit(
        input_ids=[np.asarray(ids, dtype=np.int64) for ids in table["input_ids"].to_pylist()],
        label_ids=table["label"].to_numpy(),
        **about | {"labels": tuple(about["labels"])},
    )


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
