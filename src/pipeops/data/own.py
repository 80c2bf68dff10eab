"""Reading one's own data: the rows are checked, counted, split and written for all jobs.

What is written are ``train.parquet`` and ``validation.parquet`` (columns ``text``, ``text2`` for pairs, and
``label``, a class id) and ``about.json``. Rows stay on disk: they are read twice, and of each, two hashes and
two numbers are kept.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeops.data.rows import BATCH, as_texts, batches, label_texts, listed_texts
from pipeops.data.sources import check_columns, glance
from pipeops.data.tasks import SPLITS, SUBSET_SEED, Task
from pipeops.errors import PipeOpsError
from pipeops.files import expanded, state_of
from pipeops.integrity import sealed_folder
from pipeops.progress import tracked
from pipeops.reading import reading
from pipeops.settings import Split, TaskSection
from pipeops.text import listed, markdown_table, shortened

if TYPE_CHECKING:
    from datasets import Dataset

TEXTS = ("text", "text2")
"""Columns of the written rows that hold texts."""
LABEL = "label"
ABOUT = "about.json"
"""What the rows are, beside them."""
LEAST_OF_A_CLASS = 2
RARE = 10
"""A class with this many times fewer training rows than the largest is pointed out."""
NO_LABEL = -1


@dataclass(frozen=True, kw_only=True)
class About:
    """What the rows of a task are."""

    columns: tuple[str, ...]
    """Text columns, as the source calls them."""
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    rows: Mapping[str, int]
    """Per split."""
    classes: Mapping[str, Mapping[str, int]]
    """Per split: rows of each class."""
    dropped: Mapping[str, int]
    """Per split: rows that were left out, as they had no text or no label."""
    empty: Mapping[str, int]
    """Per split: rows that are used and have no text."""
    repeated: Mapping[str, int]
    """Per split: rows whose texts stand in an earlier row of the split."""
    contradictory: int
    """Training rows whose texts also stand in a row with another label."""
    overlapping: int
    """Validation rows whose texts stand in a training row."""

    def task(self, name: str) -> Task:
        """The task with its classes; how long its texts are is not known."""
        return Task(
            name=name, columns=self.columns, labels=self.labels, rows=self.rows, mean_tokens=0, own=True
        )

    def text(self, name: str) -> str:
        """The counts as a table, and a warning for each that may spoil a result."""
        header = ["", *self.rows]
        lines = [
            ["rows", *_counts(self.rows)],
            ["left out", *_counts(self.dropped)],
            ["without text", *_counts(self.empty)],
            ["repeated texts", *_counts(self.repeated)],
        ]
        for label in self.labels:
            shares = [f"{self.classes[s].get(label, 0):,} ({self._share(s, label):.1%})" for s in self.rows]
            lines.append([f"class {shortened(label)}", *shares])
        warnings = [f"warning: tasks.{name}: {warning}" for warning in self.warnings()]
        return "\n".join([f"{name}: {len(self.labels)} classes", markdown_table(header, lines), *warnings])

    def warnings(self) -> list[str]:
        """What is allowed and may spoil a result, a line each."""
        found = []
        if self.overlapping:
            found.append(
                f"{self.overlapping:,} of {self.rows['validation']:,} validation texts stand in train too, "
                "and accuracy on them is none on new texts; leave them out"
            )
        if self.contradictory:
            found.append(f"{self.contradictory:,} training texts also stand under another label")
        for split, count in self.empty.items():
            if count:
                found.append(f"{count:,} rows of {split} have no text; drop_empty: true leaves them out")
        largest = max(self.classes["train"].values())
        if rare := [label for label in self.labels if self.classes["train"][label] * RARE < largest]:
            found.append(
                f"{listed(rare)}: fewer than a tenth of the largest class's training rows; "
                f"always answering the largest is right in {largest / self.rows['train']:.1%}"
            )
        if absent := [label for label in self.labels if not self.classes["validation"].get(label)]:
            found.append(f"validation has no row of {listed(absent)}")
        return found

    def _share(self, split: str, label: str) -> float:
        return self.classes[split].get(label, 0) / self.rows[split]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is kept of every row of one source, each of shape (rows,)."""

    label_ids: NDArray[np.int64]
    """Number of the label in ``labels``, NO_LABEL where there is none."""
    labels: list[str]
    """In the order in which they come."""
    texts: NDArray[np.uint64]
    """Hash of the row's texts."""
    empty: NDArray[np.bool_]
    """Whether all of its texts are empty or blank."""
    groups: NDArray[np.uint64]
    """Hash of the group; that of the texts where no group is named."""


class Source:
    """The rows of one split that is given, read as often as they are asked for."""

    def __init__(self, section: TaskSection, split: Split, key: str) -> None:
        """Look at the source; what is in it is read later.

        Args:
            section: where its rows are.
            split: which of the given ones.
            key: of the section, for messages.

        Raises:
            PipeOpsError: it cannot be read, or a column is missing.
        """
        self.section, self.split, self.key = section, split, key
        self.where = f"{key}: {split}"
        if section.hub:
            self.estimated_rows = len(self._hub)
            if not self.estimated_rows:
                raise PipeOpsError(f"{key}.hub: '{section.hub}' has no rows of {split}; name another split")
            check_columns(self._hub.column_names, section, where=section.hub, key=key)
        else:
            self.estimated_rows = sum(glance(path, section, key).rows for path in self._paths)
            self._found = [state_of(path) for path in self._paths]

    @property
    def _paths(self) -> list[Path]:
        return [expanded(path) for path in self.section.files[self.split]]

    @cached_property
    def _hub(self) -> "Dataset":
        return _load_from_hub(self.section, self.split, self.key)

    @property
    def class_names(self) -> list[str] | None:
        """What a hub's class ids mean; None where labels are no class ids."""
        return getattr(self._hub.features[self.section.label], "names", None) if self.section.hub else None

    def batches(self) -> Iterator[pa.Table]:
        """All rows, with the columns that are used.

        Raises:
            PipeOpsError: see :func:`pipeops.data.rows.batches`; or a file is not what it was: rows are read
                twice, and must be the same.
        """
        columns, encoding = self.section.columns, self.section.encoding
        if self.section.hub:
            yield from self._hub.select_columns(columns).with_format("arrow").iter(batch_size=BATCH)
            return
        for path, found in zip(self._paths, self._found, strict=True):
            for table in batches(path, columns=columns, encoding=encoding):
                _refuse_changed(path, found)
                yield table
            _refuse_changed(path, found)


def _refuse_changed(path: Path, found: tuple[int, ...]) -> None:
    if state_of(path) != found:
        raise PipeOpsError(f"{path}: changed while it was read; run again once it is whole")


def gather(name: str, section: TaskSection, output: Path) -> About:
    """Read a task's source and write its rows, split by split.

    Args:
        name: of the task.
        section: its source and columns.
        output: folder for the rows of both splits and what they are.

    Returns:
        What was counted; it is written beside the rows too.

    Raises:
        PipeOpsError: a source cannot be read, a column is missing or no text, or rows cannot be learned from:
            no label, a class of one row, a single class, a class that only the validation rows have.
    """
    key = f"tasks.{name}"
    output.mkdir(parents=True, exist_ok=True)
    sources = {split: Source(section, split, key) for split in section.given}
    facts = {split: _facts(source) for split, source in sources.items()}
    labels = _class_names(facts, section, key)
    kept = {split: _kept(one, section, f"{key}: {split}") for split, one in facts.items()}
    ids = {split: _class_ids(one, labels) for split, one in facts.items()}
    _refuse_too_few(ids["train"][kept["train"]], labels, key)
    chosen: dict[Split, tuple[Split, NDArray[np.bool_]]] = {s: (s, mask) for s, mask in kept.items()}
    if section.held_out is not None:
        places = np.flatnonzero(kept["train"])
        out = held_out(
            ids["train"][places], facts["train"].groups[places], fraction=section.held_out, seed=section.seed
        )
        _refuse_missing(out, ids["train"][places], labels, key)
        halves: dict[Split, NDArray[np.bool_]] = {"train": ~out, "validation": out}
        for split, taken in halves.items():
            mask = np.zeros(len(kept["train"]), dtype=bool)
            mask[places[taken]] = True
            chosen[split] = ("train", mask)
    about = _about(section, labels, facts, ids, kept, chosen)
    with sealed_folder(output, last=ABOUT) as folder:
        _write(sources, ids, chosen, folder)
        text = json.dumps(asdict(about), indent=2, ensure_ascii=False) + "\n"
        (folder / ABOUT).write_text(text, encoding="utf-8")
    return about


def read_about(path: Path) -> About:
    """Read what :func:`gather` wrote about a task's rows.

    Raises:
        PipeOpsError: the file is missing or damaged.
    """
    with reading(path, absent="read the rows first", again="read the rows again"):
        values = json.loads(path.read_text(encoding="utf-8"))
        names = {name: tuple(map(str, values[name])) for name in ("columns", "labels")}
        about = About(**values | names)
        if not 1 <= len(about.columns) <= len(TEXTS) or len(about.labels) < 2:
            raise ValueError(f"{len(about.columns)} columns, {len(about.labels)} classes")
        rows: dict[str, int] = {split: int(about.rows[split]) for split in SPLITS}
        return replace(about, rows=rows)


def task_of(rows: Path) -> Task:
    """The task of a file of rows, with the file's names of the columns.

    Raises:
        PipeOpsError: see :func:`read_about`.
    """
    task = read_about(rows.with_name(ABOUT)).task(rows.parent.name)
    return replace(task, columns=TEXTS[: len(task.columns)])


def row_batches(rows: Path, *, examples: int | None) -> Iterator[pa.Table]:
    """Read rows batch by batch.

    Args:
        rows: those of one split.
        examples: how many to take, drawn with a fixed seed; None or more than there are: all.

    Yields:
        Tables with the columns of the file, in its order.

    Raises:
        PipeOpsError: the file is missing or damaged.
    """
    with reading(rows, wrong="no readable rows", again="read them again"):
        file = pq.ParquetFile(rows)
        total, start = file.metadata.num_rows, 0
        drawn = np.arange(total)
        if examples is not None and examples < total:
            drawn = np.sort(np.random.default_rng(SUBSET_SEED).choice(total, examples, replace=False))
        for batch in file.iter_batches(batch_size=BATCH):
            here = drawn[np.searchsorted(drawn, start) : np.searchsorted(drawn, start + len(batch))] - start
            if len(here):
                yield pa.Table.from_batches([batch]).take(pa.array(here))
            start += len(batch)


def _load_from_hub(section: TaskSection, split: Split, key: str) -> "Dataset":
    from datasets import disable_progress_bars, load_dataset
    from datasets.utils.logging import set_verbosity

    disable_progress_bars()
    set_verbosity(logging.CRITICAL)  # it may print rows
    named = section.splits.get(split, split)
    try:
        return load_dataset(section.hub, section.subset, split=named)
    except ConnectionError:
        raise PipeOpsError(f"{key}.hub: the hub cannot be reached for '{section.hub}'; name files") from None
    except Exception as error:
        # Other libraries' messages may hold rows.
        own = isinstance(error, (FileNotFoundError, ValueError))
        reason = shortened(error, 150) if own else type(error).__name__
        raise PipeOpsError(f"{key}.hub: '{section.hub}' has no {named} that can be read ({reason})") from None


def _facts(source: Source) -> Facts:
    """Go through the rows once."""
    section, where, named = source.section, source.where, source.class_names
    numbers: dict[str, int] = {}
    found: list[tuple[NDArray, ...]] = []
    shown = tracked(source.batches(), f"read {source.split}", total=source.estimated_rows, size=len)
    for table in shown:
        frame = pd.DataFrame({name: listed_texts(table[name], name, where) for name in section.text})
        texts = pd.util.hash_pandas_object(frame, index=False).to_numpy()
        empty = np.logical_and.reduce([frame[name].str.strip() == "" for name in section.text])
        if named is None:
            said = label_texts(table[section.label], section.label, where)
        else:
            classes = table[section.label].to_pylist()
            said = [named[one] if one is not None and one >= 0 else "" for one in classes]
        ids = np.array([numbers.setdefault(one, len(numbers)) if one else NO_LABEL for one in said], np.int64)
        groups = texts
        if section.group:
            group = pd.Series(listed_texts(table[section.group], section.group, where))
            groups = pd.util.hash_pandas_object(group, index=False).to_numpy()
        found.append((ids, texts, empty, groups))
    whole = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return Facts(labels=list(numbers), label_ids=whole[0], texts=whole[1], empty=whole[2], groups=whole[3])


def _class_names(facts: Mapping[Split, Facts], section: TaskSection, key: str) -> list[str]:
    """Classes of the training rows in order: by number if all are integers, else by name."""
    labels = sorted(facts["train"].labels)
    if all(re.fullmatch(r"[+-]?\d{1,1000}", label) for label in labels):  # Python reads no longer ones
        labels.sort(key=int)
    if len(labels) < 2:
        found = f"one class only, '{shortened(labels[0])}'" if labels else "no label at all"
        raise PipeOpsError(f"{key}.label: column '{section.label}' has {found}; two classes are the least")
    if "validation" in facts and (strange := sorted(set(facts["validation"].labels) - set(labels))):
        raise PipeOpsError(
            f"{key}: validation has {len(strange)} labels that no training row has: {listed(strange)}; "
            "correct them, or leave those rows out"
        )
    return labels


def _class_ids(facts: Facts, labels: Sequence[str]) -> NDArray[np.int64]:
    """The facts' label numbers as class ids."""
    place = {label: number for number, label in enumerate(labels)}
    return np.array([*(place[label] for label in facts.labels), NO_LABEL])[facts.label_ids]


def _kept(facts: Facts, section: TaskSection, where: str) -> NDArray[np.bool_]:
    """Which rows are used."""
    unlabelled = facts.label_ids == NO_LABEL
    if section.drop_empty:
        return ~unlabelled & ~facts.empty
    if unlabelled.any():
        raise PipeOpsError(
            f"{where}: {unlabelled.sum():,} rows have no '{section.label}', the first is row "
            f"{int(unlabelled.argmax()) + 1:,}; fill it in, or set drop_empty: true to leave them out"
        )
    return ~unlabelled


def _refuse_too_few(ids: NDArray[np.int64], labels: Sequence[str], key: str) -> None:
    counts = np.bincount(ids, minlength=len(labels))
    if rare := [label for label, count in zip(labels, counts, strict=True) if count < LEAST_OF_A_CLASS]:
        raise PipeOpsError(
            f"{key}: {listed(rare)}: fewer than {LEAST_OF_A_CLASS} training rows in {len(rare)} of "
            f"{len(labels)} classes; add rows, or leave theirs out"
        )


def _refuse_missing(out: NDArray[np.bool_], ids: NDArray[np.int64], labels: Sequence[str], key: str) -> None:
    """Whole groups may leave a class on one side only."""
    for what, rows in (("training", ids[~out]), ("held-out", ids[out])):
        counts = np.bincount(rows, minlength=len(labels))
        if absent := [label for label, count in zip(labels, counts, strict=True) if not count]:
            raise PipeOpsError(
                f"{key}.held_out: no {what} row of {listed(absent)}: rows of one group, or of the same "
                "texts, stay together; add rows, or name the validation rows"
            )


def held_out(
    label_ids: NDArray[np.int64], groups: NDArray[np.uint64], *, fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose rows to hold out: whole groups, about ``fraction`` of each class, at least one row of it.

    Groups are taken as they bring the classes nearer to their counts, large ones first, for small ones can
    fill what is left.

    Args:
        label_ids: class ids, shape (rows,).
        groups: whatever tells groups apart, shape (rows,).
        fraction: of each class's rows.
        seed: of the order among groups of one size.

    Returns:
        True where a row is held out, shape (rows,).
    """
    counts = np.bincount(label_ids)
    wanted = np.clip(np.round(fraction * counts), 1, np.maximum(counts - 1, 1))
    _, group_ids, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    by_group = np.argsort(group_ids, kind="stable")
    ends = np.cumsum(sizes)
    left, labels = wanted.tolist(), label_ids[by_group].tolist()
    taken = np.zeros(len(sizes), dtype=bool)
    for group in order.tolist():
        members = Counter(labels[ends[group] - sizes[group] : ends[group]])
        if sum(abs(left[c]) - abs(left[c] - n) for c, n in members.items()) > 0:
            taken[group] = True
            for c, n in members.items():
                left[c] -= n
    return taken[group_ids]


def _about(
    section: TaskSection,
    labels: Sequence[str],
    facts: Mapping[Split, Facts],
    ids: Mapping[Split, NDArray[np.int64]],
    kept: Mapping[Split, NDArray[np.bool_]],
    chosen: Mapping[Split, tuple[Split, NDArray[np.bool_]]],
) -> About:
    texts = {split: facts[source].texts[mask] for split, (source, mask) in chosen.items()}
    found = {split: ids[source][mask] for split, (source, mask) in chosen.items()}
    counts = {split: np.bincount(one, minlength=len(labels)).tolist() for split, one in found.items()}
    pairs = pd.DataFrame({"text": texts["train"], "label": found["train"]}).drop_duplicates()
    several = pairs["text"][pairs["text"].duplicated(keep=False)].unique()
    return About(
        columns=tuple(section.text),
        labels=tuple(labels),
        rows={split: len(one) for split, one in found.items()},
        classes={split: dict(zip(labels, one, strict=True)) for split, one in counts.items()},
        dropped={split: int((~kept[split]).sum()) if split in kept else 0 for split in chosen},
        empty={split: int(facts[source].empty[mask].sum()) for split, (source, mask) in chosen.items()},
        repeated={split: int(pd.Series(one).duplicated().sum()) for split, one in texts.items()},
        contradictory=int(np.isin(texts["train"], several).sum()),
        overlapping=int(np.isin(texts["validation"], texts["train"]).sum()),
    )


def _write(
    sources: Mapping[Split, Source],
    ids: Mapping[Split, NDArray[np.int64]],
    chosen: Mapping[Split, tuple[Split, NDArray[np.bool_]]],
    folder: Path,
) -> None:
    """Go through the sources again and write the rows of each split."""
    names = TEXTS[: len(sources["train"].section.text)]
    schema = pa.schema([*((name, pa.large_string()) for name in names), (LABEL, pa.int64())])
    with ExitStack() as stack:
        writers = {}
        for split in chosen:
            writers[split] = stack.enter_context(pq.ParquetWriter(folder / f"{split}.parquet", schema))
        for given, source in sources.items():
            start = 0
            for table in tracked(source.batches(), f"write {given}", total=len(ids[given]), size=len):
                rows = slice(start, start + len(table))
                start += len(table)
                texts = [as_texts(table[name], name, source.where) for name in source.section.text]
                whole = pa.table([*texts, pa.array(ids[given][rows])], schema=schema)
                for split, (origin, mask) in chosen.items():
                    if origin == given and mask[rows].any():
                        writers[split].write_table(whole.filter(pa.array(mask[rows])))


def _counts(by_split: Mapping[str, int]) -> list[str]:
    return [f"{count:,}" for count in by_split.values()]
