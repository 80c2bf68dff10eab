"""The built-in classification tasks: four of GLUE's, and generated ones that need no download.

The table imports nothing heavy; loading imports ``datasets``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeops.errors import PipeOpsError
from pipeops.reading import reason

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

SPLITS = ("train", "validation")
REGRESSION_TASKS = ("stsb",)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One classification task: where its text is and what its labels mean."""

    name: str
    columns: tuple[str, ...]
    """Text columns: one, or two for a pair of sentences."""
    labels: tuple[str, ...]
    """Class names in the order of their ids; empty where only the rows tell."""
    rows: Mapping[str, int]
    """Examples in each split."""
    mean_tokens: int
    """Mean length of a training example in tokens, separators included; what planning counts with."""
    generated: bool = False
    """Whether the rows are made by `pipeops.data.synthetic` instead of loaded."""
    own: bool = False
    """Whether it is one of the configuration's `tasks`: its classes are in its rows."""
    revision: int = 0
    """Raised by hand when other rows are made."""


_PAIR = ("sentence1", "sentence2")
_GENERATED_ROWS = {"train": 20_000, "validation": 5_000}

TASKS = {
    task.name: task
    for task in (
        Task(
            name="mrpc",
            columns=_PAIR,
            labels=("not_equivalent", "equivalent"),
            rows={"train": 3_668, "validation": 408},
            mean_tokens=53,
        ),
        Task(
            name="sst2",
            columns=("sentence",),
            labels=("negative", "positive"),
            rows={"train": 67_349, "validation": 872},
            mean_tokens=13,
        ),
        Task(
            name="qnli",
            columns=("question", "sentence"),
            labels=("entailment", "not_entailment"),
            rows={"train": 104_743, "validation": 5_463},
            mean_tokens=49,
        ),
        Task(
            name="qqp",
            columns=("question1", "question2"),
            labels=("not_duplicate", "duplicate"),
            rows={"train": 363_846, "validation": 40_430},
            mean_tokens=31,
        ),
        Task(
            name="generated-sentiment",
            columns=("sentence",),
            labels=("negative", "positive"),
            rows=_GENERATED_ROWS,
            mean_tokens=12,
            generated=True,
            revision=1,
        ),
        Task(
            name="generated-paraphrase",
            columns=_PAIR,
            labels=("not_equivalent", "equivalent"),
            rows=_GENERATED_ROWS,
            mean_tokens=14,
            generated=True,
        ),
    )
}

SUBSET_SEED = 0  # which examples a subset holds does not vary with the run's seed


def load_split(task: Task, split: str, *, glue: str, examples: int | None) -> "Dataset":
    """Load one split of a task.

    Args:
        task: one of ``TASKS``.
        split: ``train`` or ``validation``.
        glue: hub id of GLUE or a folder of the same layout; unused by generated tasks.
        examples: how many to take, drawn with a fixed seed; None or more than there are: all.

    Returns:
        A dataset with the task's text columns and ``label``.

    Raises:
        PipeOpsError: the source cannot be read, or lacks the split, a column, or class labels.
    """
    if task.generated:
        return _generate(task, split, examples)
    dataset = _load_glue(task, split, glue)
    for column in (*task.columns, "label"):
        if column not in dataset.column_names:
            found = ", ".join(dataset.column_names)
            raise PipeOpsError(f"{glue}: {task.name}/{split} has no column '{column}' (found {found})")
    dataset = dataset.select_columns([*task.columns, "label"])
    for column in task.columns:
        if None in dataset[column]:
            raise PipeOpsError(f"{glue}: {task.name}/{split} has an empty cell in column '{column}'")
    _check_labels(task, split, dataset["label"], glue)
    if examples is not None and examples < len(dataset):
        dataset = dataset.shuffle(seed=SUBSET_SEED).select(range(examples))
    return dataset


def split_batches(task: Task, split: str, *, glue: str, examples: int | None) -> Iterator["pa.Table"]:
    """Load one split of a task batch by batch; arguments and errors as of :func:`load_split`."""
    return load_split(task, split, glue=glue, examples=examples).with_format("arrow").iter(batch_size=1000)


def _generate(task: Task, split: str, examples: int | None) -> "Dataset":
    from datasets import Dataset

    from pipeops.data.synthetic import generate

    rows = generate(task.name, split, examples or _GENERATED_ROWS[split])
    return Dataset.from_dict(rows).select_columns([*task.columns, "label"])


def _load_glue(task: Task, split: str, glue: str) -> "Dataset":
    from datasets import load_dataset

    try:
        return load_dataset(glue, task.name, split=split)
    except ConnectionError:
        raise PipeOpsError(
            f"glue: the hub cannot be reached for '{glue}'; set `glue` to a local folder of its layout"
        ) from None
    except Exception as error:  # of damaged files the libraries raise anything
        raise PipeOpsError(
            f"glue: '{glue}' has no {task.name}/{split} that can be read ({reason(error)}); name a folder of "
            "its layout"
        ) from None


def _check_labels(task: Task, split: str, labels: list[object], glue: str) -> None:
    classes = set(range(len(task.labels)))
    strange = set(labels) - classes
    if strange:
        raise PipeOpsError(
            f"{glue}: {task.name}/{split} has labels {sorted(strange, key=str)[:3]}; "
            f"expected class ids {sorted(classes)} (not a classification task, or an unlabelled split)"
        )
