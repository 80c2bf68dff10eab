"""What published answers depend on: settings written beside them, and compared where they are used."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pipeops.errors import PipeOpsError
from pipeops.files import expanded
from pipeops.hardware import cpu_of
from pipeops.operators.registry import OPERATORS
from pipeops.pipeline import Pipeline
from pipeops.reading import reading
from pipeops.settings import ALTERNATE, SAVING, TINY
from pipeops.study.config import BaseConfig
from pipeops.text import shortened

SETTINGS = "study.json"
"""File of the folder."""
_SPEED = {"threads", *SAVING}  # they decide when a training is done, and not what it makes
_MODELS = ("model.backbone", "model.student")


def deciding(study: BaseConfig) -> dict[str, Any]:
    """The settings that decide what is answered, and what that costs.

    Not where data are, which rows are studied, or by which rule inputs leave.

    Returns:
        Sections as in the configuration; and ``pipelines``: per trained pipeline those of its training.
    """
    own = {"text", "label", "held_out", "group", "seed", "drop_empty", "subset", "splits"}
    found = {
        "model": study.model.model_dump(),
        "data": study.data.model_dump(),
        "tasks": {name: study.tasks[name].model_dump(include=own) for name in study.own_datasets},
        "prices": study.prices.model_dump(include={"threads"}),
        "pipelines": {str(pipeline): _of_training(study, pipeline) for pipeline in study.trainings},
    }
    if study.model.backbone == TINY:
        found["pretraining"] = study.pretraining.model_dump(exclude=_SPEED)
    return found


def _of_training(study: BaseConfig, pipeline: Pipeline) -> dict[str, Any]:
    section, exits = OPERATORS[pipeline.operator].section, study.exit_training(pipeline)
    training = study.training_of(pipeline).model_dump(exclude=_SPEED)
    own = {section: getattr(study, section).model_dump()} if section else {}
    return {
        "training": training | {"exit_loss": exits.exit_loss},
        "exits": {"standardise": exits.standardise},
    } | own


def refuse_other_study(study: BaseConfig, folder: Path) -> None:
    """Compare a study with the one whose answers these are; datasets, seeds and pipelines may be fewer.

    Raises:
        PipeOpsError: a setting that decides the answers differs, or the folder does not say its own.
    """
    path = folder / SETTINGS
    with reading(path, absent="write it by pipeops publish", again="publish the study again"):
        theirs = json.loads(path.read_text(encoding="utf-8"))
        sections = dict(_flat({key: value for key, value in theirs.items() if key != "pipelines"}))
        trainings = {name: dict(_flat(one)) for name, one in theirs["pipelines"].items()}
    mine = json.loads(json.dumps(deciding(study)))
    of_pipelines = mine.pop("pipelines")
    if study.prices_from is not None:
        mine.pop("prices")  # they are not those of this folder
    _refuse(dict(_flat(mine)), sections, path)
    for name, one in of_pipelines.items():
        _refuse(dict(_flat(one)), trainings.get(name, {}), path, of=f" of {name}")


def refuse_other_prices(study: BaseConfig, folder: Path) -> None:
    """Compare the CPUs of a study's prices with each other, and their threads with those that it asks for.

    Published prices may be of any one CPU.

    Raises:
        PipeOpsError: there are several CPUs, and the study does not allow it; or threads differ.
    """
    first: dict[str, Path] = {}
    for dataset, pipeline in product(study.datasets, study.measured):
        path = folder / f"prices/{dataset}/{pipeline.operators}.json"
        with reading(path, again="price again", sealed_with=path.with_suffix(".csv")):
            record = json.loads(path.read_text(encoding="utf-8"))
            cpu, threads = cpu_of(record), int(record["parameters"]["settings"]["threads"])
        first.setdefault(cpu, path)
        if threads != study.prices.threads:
            raise PipeOpsError(
                f"{path}: priced with {threads} threads, the study asks for {study.prices.threads}; "
                f"price again, or set prices.threads to {threads}"
            )
    if len(first) > 1 and not study.measuring.allow_other_cpu:
        (one, path), (other, another), *_ = first.items()
        raise PipeOpsError(
            f"{another}: priced on {other}, {path} on {one}; price all on one CPU, or allow it: "
            "measuring: {allow_other_cpu: true}"
        )


def _refuse(mine: Mapping[str, Any], theirs: Mapping[str, Any], path: Path, *, of: str = "") -> None:
    for key, value in mine.items():
        if key not in theirs or theirs[key] == value or (key in _MODELS and _copy(value, theirs[key])):
            continue
        raise PipeOpsError(
            f"{path}: {key}{of} was {_yaml(theirs[key])} there, and is {_yaml(value)} here; set it to that, "
            "or set answers: null to train and measure"
        )


def _yaml(value: Any) -> str:
    """A value as one writes it into a configuration."""
    return shortened(value if isinstance(value, str) else json.dumps(value), 80)


def _copy(*models: Any) -> bool:
    """Whether one of these is a folder, which may hold what the other names."""
    return any(expanded(model).is_dir() for model in models) and not {TINY, ALTERNATE} & set(models)


def _flat(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Values by their keys, joined by dots."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{within}{key}.")
        else:
            yield within + key, value
