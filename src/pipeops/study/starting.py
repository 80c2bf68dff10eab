"""A first configuration for one's own data: columns, longest input and recipe are guessed, and said."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeops.data.own import LEAST_OF_A_CLASS
from pipeops.data.rows import read_table
from pipeops.data.sources import CHARACTERS_PER_TOKEN
from pipeops.data.tasks import TASKS
from pipeops.errors import PipeOpsError
from pipeops.files import expanded, refuse_unprintable, replaced
from pipeops.models.architectures import TINY_OF_OWN_TEXTS, architecture
from pipeops.reading import reading
from pipeops.settings import TINY
from pipeops.study.config import load_config
from pipeops.text import listed, nearest, shortened

LABEL_NAMES = (
    *("label", "labels", "class", "category", "target"),
    *("sentiment", "stars", "rating", "intent", "topic"),
)
"""Columns that are taken for labels before others, in this order."""
PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "answer"),
    ("title", "body"),
)
"""Columns that are taken for pairs of texts."""
MOST_CLASSES = 200
HELD_OUT = 0.2
COVERED = 0.95
"""Part of the rows whose texts the longest input should hold."""
LENGTHS = (16, 32, 64, 128, 256, 512)
FEW_ROWS = 4000
"""Up to so many training rows all are used."""
SMALL = 512
"""Hidden size below which an encoder learns at the higher rate."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What the columns of a file are."""

    text: tuple[str, ...]
    """One, or two for pairs."""
    label: str
    classes: pd.Series
    """Rows of each class, the largest first."""
    max_length: int
    """Longest input in tokens."""
    rows: int


def start(
    data: Path,
    model: str,
    output: Path,
    *,
    validation: Path | None = None,
    text: Sequence[str] = (),
    label: str | None = None,
    name: str | None = None,
) -> str:
    """Write a configuration for a file of one's own, and say what was guessed.

    Args:
        data: training rows: CSV, TSV, JSON lines or Parquet.
        model: ``tiny``, a hub id, or the folder of an encoder or a fine-tuned classifier.
        output: the YAML file to write; it must not exist.
        validation: its rows; None: a part of the training rows is held out.
        text: columns of texts; empty: they are guessed.
        label: column of labels; None: it is guessed.
        name: of the task; None: the file's.

    Raises:
        PipeOpsError: a file cannot be read, no column looks like texts or labels, or the configuration would
            be refused.
    """
    for path in filter(None, (data, validation)):
        refuse_unprintable(path)
    if output.exists():
        raise PipeOpsError(f"{output}: is there already; name another by --output, or delete it")
    found = guess(data, text=text, label=label, longest=_longest(model))
    task = name or _task_name(data)
    model_lines, about_model = _model_lines(model, list(found.classes.index))
    written = _yaml(data, validation, task, found, [*model_lines, *_length_lines(found)], _recipe(model))
    load_config(yaml.safe_load(written))
    with replaced(output) as path:
        path.write_text(written, encoding="utf-8")
    shares = ", ".join(
        f"{shortened(one)} {count / found.rows:.0%}" for one, count in found.classes.iloc[:8].items()
    )
    more = ", ..." if len(found.classes) > 8 else ""
    return "\n".join(
        [
            f"{data}: {found.rows:,} rows",
            f"texts: {' and '.join(found.text)}",
            f"labels: {found.label}, {len(found.classes)} classes ({shares}{more})",
            f"validation: {validation or f'{HELD_OUT:.0%} of these rows, held out'}",
            f"longest input: {found.max_length} tokens",
            f"model: {about_model}",
            f"results: results/{task}, logs: logs/{task}",
            f"{output} has all of this: correct what was guessed wrongly, then run",
            "  " + shlex.join(["snakemake", "-n", "--configfile", str(output), "--", "parts"]),
        ]
    )


def guess(data: Path, *, text: Sequence[str], label: str | None, longest: int) -> Guess:
    """Guess which columns are texts and labels, unless they are named.

    Args:
        data: the file.
        text: columns of texts; empty: they are guessed.
        label: column of labels; None: it is guessed.
        longest: what the model takes at most, in tokens.

    Raises:
        PipeOpsError: the file cannot be read, a column is missing, none looks like texts or labels, or a
            class has a single row.
    """
    table = read_table(data)
    names = [str(column) for column in table.columns]
    for option, column in [*(("--text", one) for one in text), *([("--label", label)] if label else [])]:
        if column not in names:
            raise PipeOpsError(
                f"{option}: {data} has no column '{column}'{nearest(column, names)}; it has "
                f"{listed(names, most=10)}"
            )
    label = label or _label_column(table.drop(columns=list(text)), data)
    text = tuple(text) or _text_columns(table.drop(columns=[label]), data)
    classes = _classes(table[label], data)
    characters = table[list(text)].astype(str).agg("".join, axis="columns").str.len()
    wanted = characters.quantile(COVERED) / CHARACTERS_PER_TOKEN + 2
    fitting = next((length for length in LENGTHS if length >= wanted), LENGTHS[-1])
    return Guess(
        text=tuple(text),
        label=label,
        classes=classes,
        max_length=min(fitting, longest),
        rows=len(table),
    )


def _classes(labels: pd.Series, data: Path) -> pd.Series:
    """Rows of each class, the largest first; rows without a label are counted when they are read."""
    names = labels.dropna().astype(str).str.split().str.join(" ")
    classes = names[names != ""].value_counts()
    if len(classes) < 2:
        found = f"one class only, {listed(list(classes.index))}" if len(classes) else "no label at all"
        raise PipeOpsError(f"--label: column '{labels.name}' of {data} has {found}; name another")
    if rare := sorted(classes.index[classes < LEAST_OF_A_CLASS]):
        raise PipeOpsError(
            f"--label: {listed(rare)} of '{labels.name}': fewer than {LEAST_OF_A_CLASS} rows of {data} in "
            f"{len(rare)} of {len(classes)} classes; add rows, leave theirs out, or name another column"
        )
    return classes


def _label_column(table: pd.DataFrame, data: Path) -> str:
    """A column of a known name, else the one with the fewest values, the last of several."""
    counts = {str(column): table[column].astype(str).nunique() for column in table.columns}
    possible = {name: n for name, n in counts.items() if 2 <= n <= min(MOST_CLASSES, len(table) // 2)}
    for name in LABEL_NAMES:
        for column in possible:
            if column.casefold() == name:
                return column
    if not possible:
        raise PipeOpsError(
            f"--label: no column of {data} looks like labels (2 to {MOST_CLASSES} values, each in several "
            f"rows); name one of {listed(list(counts), most=10)}"
        )
    return min(reversed(possible), key=possible.__getitem__)


def _text_columns(table: pd.DataFrame, data: Path) -> tuple[str, ...]:
    """A pair of known names, else the column with the most words a row."""
    words = {
        str(column): float(table[column].str.count(r"[^\W\d_]+").mean())
        for column in table.columns
        if all(isinstance(cell, str) for cell in table[column])
    }
    by_name = {column.casefold(): column for column in words}
    for pair in PAIRS:
        if set(pair) <= set(by_name):
            return tuple(by_name[name] for name in pair)
    best = max(words, key=words.__getitem__, default=None)
    if best is None or words[best] < 1:
        names = listed(list(table.columns), most=10)
        raise PipeOpsError(f"--text: no column of {data} looks like texts; name one of {names}")
    return (best,)


def _longest(model: str) -> int:
    found = architecture(TINY_OF_OWN_TEXTS if model == TINY else model)
    return found.max_length if found else LENGTHS[-1]


def _task_name(data: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", data.stem).strip("-._") or "own"
    return f"own-{name}" if name in TASKS else name


def _model_lines(model: str, classes: Sequence[str]) -> tuple[list[str], str]:
    """The sections ``model`` (without its longest input) and ``training``, and what was found, in words."""
    if model == TINY:
        return ["  backbone: tiny  # a small encoder, pretrained on the training texts"], (
            "tiny, a small encoder that is pretrained on these texts"
        )
    lines = [f"  backbone: {_flow(model)}"]
    theirs = _classifier_classes(expanded(model) / "config.json")
    if theirs is None:
        return lines, f"{model}, an encoder that is fine-tuned on these rows"
    unnamed = all(re.fullmatch(r"LABEL_\d+", one) for one in theirs)
    if unnamed:
        theirs = [str(number) for number in range(len(theirs))]
    if {one.casefold() for one in theirs} != {one.casefold() for one in classes}:
        lines.append("  # finetuned: true would take this folder's classifier, but its classes are others")
        return lines, f"{model}, a classifier of other classes ({listed(theirs)}): it is fine-tuned again"
    lines.append("  finetuned: true  # a classifier already: it is O as it is")
    lines.append("  pooling: first   # what it was fine-tuned with")
    return lines, f"{model}, a classifier of these classes: it is O as it is"


def _classifier_classes(config: Path) -> list[str] | None:
    """Class names of a folder's fine-tuned classifier; None where it is no such folder."""
    if not config.is_file():
        return None
    with reading(config, again="fetch the model again"):
        about: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        architectures = about.get("architectures") or []
        if not any(str(one).endswith("ForSequenceClassification") for one in architectures):
            return None
        names = about.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers leaves out
        return [str(names[key]) for key in sorted(names, key=int)]


def _length_lines(found: Guess) -> list[str]:
    return [f"  max_length: {found.max_length}  # tokens; about {COVERED:.0%} of the texts are shorter"]


def _yaml(
    data: Path, validation: Path | None, task: str, found: Guess, model: Sequence[str], recipe: Sequence[str]
) -> str:
    """The configuration, with a comment where something was guessed."""
    files = {"train": str(data)} | ({"validation": str(validation)} if validation else {})
    text: Any = list(found.text) if len(found.text) > 1 else found.text[0]
    all_rows = found.rows <= FEW_ROWS
    return "\n".join(
        [
            f"# A study of {data}. config.yaml explains every key, and has the defaults of the others.",
            f"pathvars: {_flow({name: f'{name}/{task}' for name in ('results', 'logs')})}",
            "",
            "tasks:",
            f"  {_flow(task)}:",
            f"    files: {_flow(files)}",
            *([] if validation else [f"    held_out: {HELD_OUT}  # part of the rows, for validation"]),
            f"    text: {_flow(text)}",
            f"    label: {_flow(found.label)}",
            f"datasets: {_flow([task])}",
            "",
            "# One run of everything per seed. Six or more say whether an order matters.",
            "seeds: [1, 2, 3]",
            "",
            "model:",
            *model,
            "",
            "data:",
            f"  train_examples: {'null  # all' if all_rows else f'{FEW_ROWS}  # of {found.rows}; null: all'}",
            "  validation_examples: null",
            *recipe,
            "",
        ]
    )


def _recipe(model: str) -> list[str]:
    """Settings of the trainings: the defaults are those of the ``tiny`` backbone."""
    if model == TINY:
        return []
    found = architecture(model)
    rate = "1.0e-4" if found and found.hidden_size < SMALL else "5.0e-5"
    keys = ["epochs: 3", "batch_size: 32", f"learning_rate: {rate}", "operators: {O: {epochs: 3}}"]
    return ["", "# The same for O, D, P and E.", "training:", *(f"  {key}" for key in keys)]


def _flow(value: Any) -> str:
    """A value of YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
