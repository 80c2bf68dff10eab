"""Tokenised splits: made once per dataset and backbone, read by every training and measuring job."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeops.data.tasks import Task
from pipeops.errors import PipeOpsError
from pipeops.integrity import sealed
from pipeops.reading import reading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_METADATA = "pipeops"
CHARACTERS = 2**20
"""How many are tokenised at a time, and one more text."""
MOST_UNKNOWN = 0.1
"""With a larger part of unknown tokens a backbone is the wrong one."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was tokenised."""

    examples: int
    truncated: int
    """Examples that were longer than the longest input."""
    classes: Mapping[str, int]
    """Examples by class."""
    unknown: float = 0.0
    """Part of the tokens that stand for what the backbone does not know."""

    def text(self, what: str, max_length: int) -> str:
        """A line, and a warning where a class has no example."""
        said = f"{what}: {self.examples:,} examples, {self.truncated:,} of them cut at {max_length} tokens"
        absent = sum(not count for count in self.classes.values())
        if absent:
            said += f"\nwarning: {what}: {absent} of {len(self.classes)} classes have no example; draw more"
        if self.unknown > MOST_UNKNOWN:
            said += (
                f"\nwarning: {what}: the backbone does not know {self.unknown:.0%} of the tokens; take one "
                "that was pretrained on such texts"
            )
        return said


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

    def refuse_other_vocabulary(self, path: Path, *, vocabulary: int, longest: int, model: Path) -> None:
        """Refuse examples that a model has no embeddings for.

        Args:
            path: where they come from.
            vocabulary: tokens that the model knows.
            longest: input that it takes.
            model: what it is, for the message.

        Raises:
            PipeOpsError: they were tokenised for another model.
        """
        largest = int(np.concatenate(self.input_ids).max())
        for what, found, limit in (
            ("tokens up to number", largest, vocabulary - 1),
            ("a longest input of", self.max_length, longest),
        ):
            if found > limit:
                raise PipeOpsError(
                    f"{path}: has {what} {found}, but {model} knows {limit} at most; tokenise for this model"
                )

    def padded(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One example padded to ``max_length``: ids and attention mask, each of shape (1, max_length)."""
        return pad([self.input_ids[index]], pad_token_id=self.pad_token_id, length=self.max_length)


def tokenise(
    task: Task,
    batches: Iterable[pa.Table],
    tokenizer: "PreTrainedTokenizerBase",
    output: Path,
    *,
    max_length: int,
) -> Counts:
    """Write examples, tokenised, as a Parquet file.

    Args:
        task: whose texts and classes they are.
        batches: its text columns and ``label``; see :func:`pipeops.data.tasks.split_batches`.
        tokenizer: the backbone's.
        output: the file to write.
        max_length: longer inputs are truncated, the longer sentence of a pair first.

    Returns:
        How many were written, how many of them truncated, and how many there are of each class.

    Raises:
        PipeOpsError: a batch lacks a column, or has a label that is no class, or the tokenizer has no token
            for padding or for the end of a segment.
    """
    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int64())])
    ends = "eos_token" if tokenizer.sep_token_id is None else "sep_token"
    about = {
        "labels": task.labels,
        "pad_token_id": _id_of("pad_token", tokenizer),
        "sep_token_id": _id_of(ends, tokenizer),
        "max_length": max_length,
    }
    schema = schema.with_metadata({_METADATA: json.dumps(about)})
    truncated, classes = 0, np.zeros(len(task.labels), dtype=np.int64)
    tokens = unknown = 0
    with sealed(output) as (path,), pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            if lacking := [name for name in (*task.columns, "label") if name not in batch.column_names]:
                raise PipeOpsError(f"{task.name}: rows without a column '{lacking[0]}'; read the rows again")
            texts = [batch[column].to_pylist() for column in task.columns]
            rows: list[list[int]] = []
            for few in few_characters(texts):
                for ids, too_long in _encoded(tokenizer, few, max_length):
                    rows.append(ids)
                    truncated += too_long
                    tokens += len(ids)
                    unknown += ids.count(tokenizer.unk_token_id)
            labels = batch["label"].to_numpy()
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
                raise PipeOpsError(f"{task.name}: rows with a label that is no class; read the rows again")
            classes += np.bincount(labels, minlength=len(classes))
            writer.write_table(pa.table([pa.array(rows, type=schema.types[0]), labels], schema=schema))
    by_class = dict(zip(task.labels, classes.tolist(), strict=True))
    return Counts(
        examples=int(classes.sum()),
        truncated=truncated,
        classes=by_class,
        unknown=unknown / max(1, tokens),
    )


def few_characters(texts: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """Cut columns into parts of few characters: a tokenizer takes some hundred bytes for each token."""
    start, characters = 0, 0
    for end, row in enumerate(zip(*texts, strict=True)):
        characters += sum(map(len, row))
        if characters > CHARACTERS:
            yield [list(column[start : end + 1]) for column in texts]
            start, characters = end + 1, 0
    if start < len(texts[0]):
        yield [list(column[start:]) for column in texts]


def _encoded(
    tokenizer: "PreTrainedTokenizerBase", texts: list[list[str]], max_length: int
) -> Iterator[tuple[list[int], bool]]:
    """Yield token ids, and whether they were truncated.

    The library truncates alike, but of two long texts it keeps every combination of what it cuts.
    """
    encoded = tokenizer(
        *texts, truncation=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    for index, ids in enumerate(encoded["input_ids"]):
        if len(ids) <= max_length:
            yield ids, False
        else:
            of_text = np.array([-1 if text is None else text for text in encoded.sequence_ids(index)])
            kept = kept_places(of_text, max_length, from_left=tokenizer.truncation_side == "left")
            yield np.array(ids)[kept].tolist(), True


def kept_places(of_text: NDArray[np.int64], max_length: int, *, from_left: bool) -> NDArray[np.int64]:
    """Which tokens of an input that is too long stay: special ones, and the texts' first ones.

    The longer text is cut first, then both alike, as ``longest_first`` of the ``tokenizers`` library does.

    Args:
        of_text: number of the text that each token is of, -1 for special tokens, shape (tokens,).
        max_length: how many stay.
        from_left: whether a text's beginning is cut, and not its end.
    """
    special = np.flatnonzero(of_text < 0)
    places = [np.flatnonzero(of_text == text) for text in range(of_text.max() + 1)]
    counts = longest_first([len(place) for place in places], max_length - len(special))
    kept = [special]
    for place, count in zip(places, counts, strict=True):
        kept.append(place[len(place) - count :] if from_left else place[:count])
    return np.sort(np.concatenate(kept))


def longest_first(lengths: list[int], room: int) -> list[int]:
    """How many tokens of each text are kept. The script of a deployed model, standing alone, has its own."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    shorter, longer = sorted(lengths)
    if shorter + longer > room:
        longer = max(room - shorter, room - room // 2)
        shorter = min(shorter, room // 2)
    return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]


def load_tokenised(path: Path) -> TokenisedSplit:
    """Read a file that :func:`tokenise` wrote.

    Raises:
        PipeOpsError: the file is missing or damaged.
    """
    again = "name a file of `pipeops tokenise`, or tokenise again"
    with reading(path, absent="tokenise it first", wrong="not readable", again=again, ours=True):
        table = pq.ParquetFile(path).read()
        about = json.loads((table.schema.metadata or {})[_METADATA.encode()])
        _refuse_impossible(table, about)
        return TokenisedSplit(
            input_ids=_arrays(table["input_ids"]),
            label_ids=table["label"].to_numpy(),
            labels=tuple(map(str, about["labels"])),
            **{name: int(about[name]) for name in ("pad_token_id", "sep_token_id", "max_length")},
        )


def _id_of(name: str, tokenizer: "PreTrainedTokenizerBase") -> int:
    if (found := getattr(tokenizer, f"{name}_id")) is None:
        raise PipeOpsError(f"the backbone's tokenizer has no {name}; name it in its tokenizer_config.json")
    return found


def _refuse_impossible(table: pa.Table, about: Mapping[str, Any]) -> None:
    """Refuse what :func:`tokenise` writes never: a training would end in its middle, or learn something else.

    Raises:
        ValueError: what is wrong.
    """
    ids, labels = table["input_ids"], table["label"]
    if not table.num_rows or ids.null_count or labels.null_count:
        raise ValueError("no examples, or one without tokens or label")
    least, most = pc.min_max(pc.list_value_length(ids)).as_py().values()
    if least < 1 or most > about["max_length"]:
        raise ValueError(f"examples of {least} to {most} tokens")
    if pc.min(pc.list_flatten(ids)).as_py() < 0:
        raise ValueError("a token below 0")
    if not pa.types.is_integer(labels.type):
        raise ValueError(f"labels of type {labels.type}")
    least, most = pc.min_max(labels).as_py().values()
    if least < 0 or most >= len(about["labels"]):
        raise ValueError(f"labels from {least} to {most}, of {len(about['labels'])} classes")


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    """One int64 array per list."""
    arrays = []
    for chunk in column.chunks:
        ids = chunk.flatten().to_numpy().astype(np.int64)
        arrays += np.split(ids, np.cumsum(chunk.value_lengths().to_numpy())[:-1])
    return arrays


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
