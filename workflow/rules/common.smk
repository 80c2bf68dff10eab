"""The configuration, and the functions that say which files a job needs."""

import gc
import json
import shlex
import sys
import time
from functools import cache
from pathlib import Path

from pipeops import revisions
from pipeops.study import planning
from pipeops.study.config import load_config
from pipeops.errors import PipeOpsError
from pipeops.pipeline import Pipeline, trained_pipelines
from pipeops.data.tasks import TASKS
from snakemake.exceptions import WorkflowError

STARTED = time.time()

# Planning makes millions of objects that stay; looking for garbage among them again and again takes a seventh of it.
gc.set_threshold(100_000, 20, 20)

try:
    study = load_config(config)
except PipeOpsError as error:
    raise WorkflowError(str(error)) from None

# Jobs find `pipeops` where Snakemake itself is installed, whether or not that environment is activated.
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

WEIGHTS = "model.safetensors"  # written last: where it is, the folder is whole
BACKBONE = ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS]
MODEL = ["config.json", WEIGHTS]
EXPORTED = ["model.onnx", "profile.onnx", "model-int8.onnx", "profile-int8.onnx"]
# Planning takes time and memory with every file that a job names, so that jobs name what they need. But what is to
# be deleted must be named too, and an object store (--default-storage-provider) gives a job what it names and
# nothing else.
STORED = workflow.storage_settings.default_storage_provider is not None
CHECKPOINT = (
    MODEL if study.keep_checkpoints and not STORED else [*BACKBONE, "training.json"]
)
USED_BACKBONE = BACKBONE if STORED else [WEIGHTS]


wildcard_constraints:
    dataset="|".join(TASKS),
    pipeline="|".join(trained_pipelines()),
    seed=r"\d+",
    split="train|validation",


def unless_kept(files):
    """Files that are deleted once no job needs them, unless the configuration keeps them."""
    return files if study.keep_checkpoints else temp(files)


def together(folder, files):
    """Inputs that lie in one folder, as one path where one stands for all."""
    paths = multiext(folder, *files)
    return paths[0] if len(paths) == 1 else paths


def last_operator(wildcards):
    """The trained operator that makes this pipeline from its parent."""
    return Pipeline.parse(wildcards.pipeline).operator


def operator_inputs(wildcards):
    """What only some operators need: the checkpoint that they are applied to, a student, data to judge heads by."""
    pipeline = Pipeline.parse(wildcards.pipeline)
    split = study.pruning.importance_split
    files = {}
    if pipeline.parent:
        folder = f"<results>/models/{wildcards.dataset}/{pipeline.parent}/seed{wildcards.seed}/"
        files["parent"] = multiext(folder, *MODEL)
    if pipeline.operator == "D" and study.has_student:
        files["student"] = together("<results>/backbones/student/", USED_BACKBONE)
    if pipeline.operator == "P" and split != "train":
        files["importance_data"] = f"<results>/data/{wildcards.dataset}/{split}.parquet"
    return files


def folder_of(files):
    """The folder that a file, or the first of several, lies in."""
    return str(Path(files if isinstance(files, str) else files[0]).parent)


def input_folder(name):
    """A parameter: the folder of the job's input of this name."""

    def parameter(wildcards, input):
        return folder_of(input[name])

    return parameter


def tokenise_options(wildcards):
    return study.tokenise_options(wildcards.dataset, wildcards.split)


def export_options(wildcards):
    """How sure an exit is: only where there are exits before the last layer."""
    if not set(wildcards.pipeline) & set("EC"):
        return []
    return ["--confidence", study.exits.confidence]


@cache
def training_of(operator):
    """The operator's settings, validated once and not for every job."""
    return study.training.of(operator)


def training_threads(wildcards):
    return training_of(last_operator(wildcards)).threads


@cache
def asked_for(estimate, otherwise, *arguments):
    """A resource from the model's size, computed once; ``otherwise`` where the hub alone knows the size."""
    try:
        return estimate(study, *arguments)
    except PipeOpsError:
        return otherwise


def training_memory(wildcards, attempt):
    pipeline = Pipeline.parse(wildcards.pipeline)
    return attempt * asked_for(planning.training_memory_mb, 16000, pipeline)


def training_minutes(wildcards, attempt):
    pipeline = Pipeline.parse(wildcards.pipeline)
    return attempt * asked_for(
        planning.training_minutes, 240, pipeline, wildcards.dataset
    )


def inference_memory(wildcards, attempt):
    return attempt * asked_for(planning.inference_memory_mb, 8000)


def measuring_minutes(wildcards, attempt):
    return attempt * asked_for(planning.measuring_minutes, 120, wildcards.dataset)


def all_cores(wildcards):
    """Every core of this run, looked up when a job is planned: a report is made without cores."""
    return workflow.cores


def operator_revision(wildcards):
    return revisions.OPERATOR[last_operator(wildcards)]


def training_settings(wildcards):
    """What this operator depends on, and nothing else: other settings must retrain nothing."""
    operator = last_operator(wildcards)
    settings = ["--settings", training_of(operator).model_dump_json()]
    exits = study.exit_training(Pipeline.parse(wildcards.pipeline))
    if changed := exits.model_dump(exclude_defaults=True):
        settings += ["--exits", json.dumps(changed)]
    if operator == "P":
        settings += ["--pruning", study.pruning.model_dump_json()]
    if operator == "C":
        settings += ["--costeff", study.costeff.model_dump_json()]
    return settings


def training_inputs(wildcards, input):
    """The inputs that not every operator has. (Snakemake takes a parameter made from ``input`` for a
    consequence of the input files, and does not look at it when it decides what to run again.)
    """
    options = {
        "--parent": "parent" in input.keys() and folder_of(input.parent),
        "--student": "student" in input.keys() and folder_of(input.student),
        "--importance-data": input.get("importance_data"),
    }
    return [
        text for name, value in options.items() if value for text in (name, str(value))
    ]


def curves_of(pipelines):
    """The measurements of these pipelines, for every dataset, all seeds in one file."""
    return expand(
        "<results>/curves/{dataset}/{pipeline}.csv",
        dataset=study.datasets,
        pipeline=[str(pipeline) for pipeline in pipelines],
    )


def curves_of_estimates(wildcards):
    """The measurements that estimates are made from and compared with."""
    if not study.estimated_sets:
        # Snakemake follows every exception of an input function with a traceback, but for this one.
        sys.exit(
            "config: cumulativeness: is empty, so nothing is estimated; name operator sets with E, such as [DE]"
        )
    return curves_of(study.estimated_from)


def curves_compared_jointly(wildcards):
    """The measurements of C and of what it is compared with."""
    if not study.compared_jointly:
        sys.exit(
            "config: C is not measured, so there is nothing to compare it with; add it: "
            f"pipelines: [{', '.join([*study.pipelines, 'C'])}]"
        )
    return curves_of(study.compared_jointly)


def exits_compared_jointly(wildcards):
    """The same measurements, exit by exit."""
    return beside(curves_compared_jointly(wildcards), ".exits.csv")


def beside(curves, suffix):
    """What was written beside these measurements."""
    return [str(Path(curve).with_suffix(suffix)) for curve in curves]


def all_results():
    """Every table and figure, and what they come from."""
    figures = ["figure2", "figure3", "table1", "pareto"]
    tables = ["table1", "table2"]
    if study.estimated_sets:
        figures.append("figure4")
        tables.append("cumulativeness")
    if study.compared_jointly:
        figures.append("costeff")
        tables.append("costeff")
    return [
        *expand("<results>/{table}.csv", table=tables),
        *expand(
            "<results>/figures/{figure}.{form}", figure=figures, form=["png", "pdf"]
        ),
        "<results>/study.html",
    ]


def show_results():
    """Print the tables that this run made."""
    for name in ("table1", "table2", "cumulativeness", "costeff"):
        table = Path(workflow.pathvars.get("results")) / f"{name}.md"
        if table.exists() and table.stat().st_mtime > STARTED:
            print(table.read_text())
