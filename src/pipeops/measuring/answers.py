"""Answers as files: what every exit of a model says of every validation example, as logits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.reading import reading

PRECISIONS = ("fp32", "int8")
"""Columns of logits: without Q, and with it."""
METADATA = "pipeops"
"""Key of the file's metadata, a JSON."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What every exit of one model answers on every validation example."""

    path: Path
    """The file, for messages."""
    lengths: NDArray[np.int64]
    """Tokens of each example, shape (examples,)."""
    label_ids: NDArray[np.int64]
    """The right classes, shape (examples,)."""
    logits: Mapping[str, NDArray[np.float32]]
    """By precision, shape (examples, exits, labels)."""
    shape: ModelShape
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    max_length: int
    record: Mapping[str, Any]
    """All of the file's metadata: dataset, pipeline, seed and provenance among them."""

    def of(self, inference: str) -> NDArray[np.float32]:
        """The logits with these inference operators: L changes none, Q does."""
        return self.logits["int8" if "Q" in inference else "fp32"]


def read_answers(
    path: Path,
    *,
    dataset: str | None = None,
    pipeline: str | None = None,
    seed: int | None = None,
    labels: tuple[str, ...] | None = None,
) -> Answers:
    """Read a file of ``evaluate.evaluate``; what is given must be what the file says of itself.

    Raises:
        PipeOpsError: the file is absent, damaged, or of another dataset, pipeline, seed or set of classes.
    """
    again = "evaluate again"
    with reading(
        path, absent="evaluate the model first", wrong="not a file of answers", again=again, ours=True
    ):
        table = pq.ParquetFile(path).read(use_threads=False)
        about = json.loads((table.schema.metadata or {})[METADATA.encode()])
        shape = ModelShape.from_config(about["shape"])
        sizes = (table.num_rows, len(shape.exit_layers), shape.num_labels)
        logits = {precision: _numbers(table, precision).reshape(sizes) for precision in PRECISIONS}
        lengths, label_ids = (_numbers(table, name).astype(np.int64) for name in ("length", "label"))
        found = Answers(
            path=path,
            lengths=lengths,
            label_ids=label_ids,
            logits=logits,
            shape=shape,
            labels=tuple(about["labels"]),
            max_length=int(about["max_length"]),
            record=about,
        )
        if not len(lengths) or not all(np.isfinite(values).all() for values in logits.values()):
            raise ValueError("no answers, or some that are no numbers")
        if not 0 <= label_ids.min() <= label_ids.max() < shape.num_labels or lengths.min() < 1:
            raise ValueError("a label that is no class, or an input of no tokens")
    wanted = {"dataset": dataset, "pipeline": pipeline, "seed": seed, "labels": labels}
    for key, value in wanted.items():
        given = found.labels if key == "labels" else about.get(key)
        if value is not None and given != value:
            raise PipeOpsError(f"{path}: answers of {key} {given!r}, the study asks for {value!r}; {again}")
    return found


def _numbers(table: pa.Table, column: str) -> NDArray[Any]:
    """A column as one array, lists flattened."""
    values = table[column].combine_chunks()
    return (values.flatten() if pa.types.is_fixed_size_list(values.type) else values).to_numpy()
