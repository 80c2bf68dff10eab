"""Command lines of the workflow's jobs, and the files that they read. Nothing heavy is imported.

A job's arguments hold what its result depends on and nothing else: other settings must run nothing again.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeops.data.tasks import TASKS
from pipeops.files import expanded
from pipeops.integrity import SUMS
from pipeops.operators.declaration import STUDENT
from pipeops.operators.registry import OPERATORS
from pipeops.pipeline import Pipeline
from pipeops.settings import SAVING, TINY, WAITING
from pipeops.study.config import Config

WEIGHTS = "model.safetensors"
"""Written last: where it is, the folder is whole."""
ROWS = ("train.parquet", "validation.parquet", "about.json")
"""Files of the rows of a task of one's own."""
BACKBONE = ("config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS)
"""Files of a pretrained encoder."""
MODEL = ("config.json", WEIGHTS)
"""Files of a trained model that other jobs read."""
CHECKPOINT = (*BACKBONE, "training.json", SUMS)
"""Every file of a trained model."""
EXPORTED = ("model.onnx", "profile.onnx", "model-int8.onnx", "profile-int8.onnx")
"""Files of an exported model that other jobs read."""
EXPORT = (*EXPORTED, SUMS)
"""Every file of an exported model."""
VOCABULARY = (*BACKBONE, "vocabulary.json")
"""Files of one whose vocabulary V pruned."""
BASE = "backbones/base/"
"""Where the pretrained encoder lies within the results."""


def backbone(study: Config) -> list[str]:
    """Arguments of ``pipeops backbone`` for the encoder that O starts from, without the rows of own data."""
    arguments = [study.model.backbone]
    if study.model.backbone == TINY:
        arguments += ["--settings", study.pretraining.model_dump_json()]
        if study.own_datasets:
            arguments += ["--max-length", str(study.model.max_length)]
        else:
            for dataset in sorted(study.datasets):
                arguments += ["--task", dataset]
    return arguments


def rows(study: Config, dataset: str) -> list[str]:
    """Arguments of ``pipeops rows``."""
    settings = study.tasks[dataset].model_dump_json(exclude={"metric"}, exclude_defaults=True)
    return [dataset, "--settings", settings]


def source_files(study: Config, dataset: str) -> list[str]:
    """The files that the rows of a task of one's own come from; none where a hub has them."""
    return [str(expanded(path)) for paths in study.tasks[dataset].files.values() for path in paths]


def tokenise(study: Config, dataset: str, split: str) -> list[str]:
    """Arguments of ``pipeops tokenise``."""
    return [dataset, split, "--max-length", str(study.model.max_length), *_rows_of(study, dataset, split)]


def vocabulary(study: Config, dataset: str) -> list[str]:
    """Arguments of ``pipeops vocabulary``."""
    settings = getattr(study, OPERATORS["V"].section).model_dump_json(exclude_defaults=True)
    return [dataset, *_rows_of(study, dataset, "train"), "--settings", settings]


def vocabulary_texts(study: Config) -> list[str]:
    """The files of other texts that say which tokens are kept."""
    return [str(expanded(path)) for path in getattr(study, OPERATORS["V"].section).texts]


def _rows_of(study: Config, dataset: str, split: str) -> list[str]:
    """Options that say which rows of a split are read."""
    options: dict[str, object] = {}
    if dataset in TASKS and not TASKS[dataset].generated:
        options["--glue"] = study.glue
    examples = getattr(study.data, f"{split}_examples")
    if examples is not None:
        options["--examples"] = examples
    return _flat(options)


def prepared(pipeline: Pipeline, dataset: str) -> str:
    """Where, within the results, the backbones and data lie that a pipeline's trainings start from.

    V has a folder of its own for those of each dataset, with the same paths in it.
    """
    return f"vocabulary/{dataset}/" if pipeline.transformed else ""


def train(study: Config, pipeline: Pipeline) -> list[str]:
    """Arguments of ``pipeops train``: the operator, and one document with all its settings."""
    operator = OPERATORS[pipeline.operator]
    document = {"training": study.training_of(pipeline).model_dump(exclude=SAVING)}
    if exits := study.exit_training(pipeline).model_dump(exclude_defaults=True):
        document["exits"] = exits
    if operator.section:
        document[operator.section] = getattr(study, operator.section).model_dump()
    return [operator.letter, "--settings", json.dumps(document)]


def train_inputs(study: Config, pipeline: Pipeline, dataset: str, seed: str) -> dict[str, str]:
    """What a training reads beside data and backbone: input name -> path within the results.

    A path that ends in ``/`` is a folder. ``parent`` is the model that the operator is applied to.
    """
    extra, folder = study.inputs_of(pipeline.operator), prepared(pipeline, dataset)
    inputs = {name: folder + path.format(dataset=dataset) for name, path in extra.items()}
    if pipeline.parent:
        inputs["parent"] = f"models/{dataset}/{pipeline.parent}/seed{seed}/"
    return inputs


def train_input_options(inputs: Mapping[str, str]) -> list[str]:
    """Options of ``pipeops train`` for the inputs that not every training has, with paths as given."""
    options: list[str] = []
    for name, path in inputs.items():
        options += ["--parent", path] if name == "parent" else ["--input", f"{name}={path}"]
    return options


def train_hardware_options(study: Config, pipeline: Pipeline) -> list[str]:
    """Options of ``pipeops train`` for where and how fast it runs, and how often it saves: no other results.

    But for rounding.
    """
    settings, saving = study.training, study.training_of(pipeline).model_dump(include=SAVING)
    options = {
        "--device": settings.device,
        "--gpu-slots": settings.gpu_slots,
        "--processes": settings.gpus_per_training,
    }
    compiled = "--compiled" if settings.compiled else "--no-compiled"
    return [*_flat(options), compiled, "--settings", json.dumps({"training": saving})]


def price(study: Config, operators: str) -> list[str]:
    """Arguments of ``pipeops price`` for the models of one set of operators."""
    document: dict[str, object] = {"prices": study.prices.model_dump(exclude=WAITING)}
    if study.model.pooling != "first":
        document["exits"] = {"pooling": study.model.pooling}
    for letter in operators:
        if section := OPERATORS[letter].section:
            document[section] = getattr(study, section).model_dump()
    return ["--operators", operators, "--settings", json.dumps(document)]


def waiting_options(study: Config) -> list[str]:
    """Options of ``pipeops price`` and ``check`` for how long a quiet machine is waited for."""
    return ["--settings", json.dumps({"prices": study.prices.model_dump(include=WAITING)})]


def pruned_backbones(study: Config) -> list[str]:
    """The backbones whose vocabulary V prunes: those that trainings start from."""
    operators = "".join({letter for pipeline in study.trainings for letter in pipeline.trained})
    return ["base", "student"] if priced_with_student(study, operators) else ["base"]


def priced_with_student(study: Config, operators: str) -> bool:
    """Whether the shape of these operators' models depends on D's own pretrained student."""
    return any(STUDENT in study.inputs_of(letter).values() for letter in operators)


def check(study: Config) -> list[str]:
    """Options of ``pipeops check``: what is run, and how exits are chosen."""
    document = {
        "check": study.check.model_dump(),
        "prices": study.prices.model_dump(exclude=WAITING),
        "measuring": study.measuring.model_dump(),
        "exits": {"confidence": study.exits.confidence},
    }
    return ["--settings", json.dumps(document)]


def rule_of_exits(study: Config) -> dict[str, Any]:
    """How the curves' exits are chosen: keyword arguments of ``replay.curves``."""
    return {
        "confidence": study.exits.confidence,
        "thresholds": study.measuring.thresholds,
        "patiences": study.measuring.patiences,
    }


def _flat(options: Mapping[str, object]) -> list[str]:
    return [text for name, value in options.items() for text in (name, str(value))]
