"""The configuration, and the functions that say which files and resources a job needs."""

import gc
import json
import re
import shlex
import sys
import time
from functools import cache
from pathlib import Path

from pipeops.errors import PipeOpsError
from snakemake.exceptions import WorkflowError

try:
    from pipeops import revisions
    from pipeops.data.tasks import TASKS
    from pipeops.operators.declaration import CLASSIFIER, STUDENT
    from pipeops.operators.registry import OPERATORS
    from pipeops.pipeline import Pipeline, orderings, trained_pipelines
    from pipeops.settings import TINY
    from pipeops.study import jobs, planning
    from pipeops.study.analyses import FIGURES, FORMS, STUDY, TABLES, asked_for
    from pipeops.study.config import load_config, read_file

    for path in workflow.configfiles:
        # Snakemake takes the last of a key's values where it has several.
        read_file(Path(path))
    study = load_config(config, command_line=workflow.config_settings.config)
except PipeOpsError as error:
    raise WorkflowError(str(error)) from None

STARTED = time.time()

# Where answers and prices are: measured here, or published by another run of the study.
MEASURED = study.answers or "<results>"
PRICED = study.priced_in or "<results>"

for warning in study.warnings:
    logger.warning(warning)

# Planning makes millions of objects that stay; looking for garbage among them again and again takes a seventh of it.
gc.set_threshold(100_000, 20, 20)

# Jobs find `pipeops` where Snakemake itself is installed, whether or not that environment is activated. `set` is what
# Snakemake's own prefix has: a job that fails into a `tee` fails. Without a shell between (`exec`), a signal reaches the
# job, and a job that saves before it ends is waited for.
shell.prefix(
    "set -euo pipefail; "
    f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; exec "
)

# Planning takes time and memory with every file that a job names, so that jobs name what they need. But what is to
# be deleted must be named too, and an object store (--default-storage-provider) gives a job what it names and
# nothing else.
STORED = workflow.storage_settings.default_storage_provider is not None
CHECKPOINT = jobs.MODEL if study.keep_checkpoints and not STORED else jobs.CHECKPOINT
EXPORT = jobs.EXPORTED if study.keep_checkpoints and not STORED else jobs.EXPORT
USED_BACKBONE = jobs.BACKBONE if STORED else [jobs.WEIGHTS]


# The datasets of the user's own, as a wildcard; none matches where there are none.
OWN = "|".join(map(re.escape, study.tasks)) or "(?!)"
# Where V's own data and backbones are.
PRUNED = "vocabulary/{dataset}/"
PRUNED_BACKBONE = multiext(f"<results>/{PRUNED}{jobs.BASE}", *jobs.VOCABULARY)
PRETRAINED_ON_OWN = study.model.backbone == TINY and study.own_datasets


@cache
def pipeline_of(text):
    return Pipeline(text)


wildcard_constraints:
    dataset="|".join([*TASKS, OWN]),
    pipeline="|".join(trained_pipelines()),
    operators="|".join(
        sorted({pipeline_of(text).operators for text in trained_pipelines()})
    ),
    seed=r"\d+",
    split="train|validation",


def unless_kept(files):
    """Files that are deleted once no job needs them, unless the configuration keeps them."""
    return files if study.keep_checkpoints else temp(files)


def together(folder, files):
    """Inputs that lie in one folder, as one path where one stands for all."""
    paths = multiext(folder, *files)
    return paths[0] if len(paths) == 1 else paths


def folder_of(files):
    """The folder that a file, or the first of several, lies in."""
    return str(Path(files if isinstance(files, str) else files[0]).parent)


def input_folder(name):
    """A parameter: the folder of the job's input of this name."""

    def parameter(wildcards, input):
        return folder_of(input[name])

    return parameter


def source_files(wildcards):
    """The user's own files, which lie where they are also if results are stored elsewhere."""
    return local(jobs.source_files(study, wildcards.dataset))


def operator_of(wildcards):
    """The declaration of the operator that makes this pipeline from its parent."""
    return OPERATORS[pipeline_of(wildcards.pipeline).operator]


def prepared(path):
    """An input: what trainings start from, as it is for the pipeline."""

    def inputs(wildcards):
        folder = jobs.prepared(pipeline_of(wildcards.pipeline), wildcards.dataset)
        return f"<results>/{folder}{path.format(**wildcards)}"

    return inputs


def prepared_backbone(wildcards):
    """The backbone that trainings start from; V reads its vocabulary too."""
    pruned = pipeline_of(wildcards.pipeline).transformed
    files = jobs.VOCABULARY if STORED and pruned else USED_BACKBONE
    return together(prepared(jobs.BASE)(wildcards), files)


def training_inputs(wildcards):
    """What only some operators need: the checkpoint that they are applied to, a student, data to judge heads by."""
    paths = jobs.train_inputs(
        study, pipeline_of(wildcards.pipeline), wildcards.dataset, wildcards.seed
    )
    files = {}
    for name, path in paths.items():
        if path.endswith("/"):
            whole = jobs.MODEL if name == "parent" else USED_BACKBONE
            files[name] = together(f"<results>/{path}", whole)
        else:
            files[name] = f"<results>/{path}"
    if "parent" not in paths:
        # So that prices can be taken before the first training: they need all cores at once, and once trainings run
        # there is always one that takes the next free core.
        prices_read = ["", PRUNED] if study.transformed else [""]
        files["priced"] = [
            ancient(f"<results>/{folder}data/{{dataset}}/validation.parquet")
            for folder in prices_read
        ]
    return files


def training_input_options(wildcards, input):
    """Options for those inputs. (Snakemake takes a parameter made from ``input`` for a consequence of the input
    files, and does not look at it when it decides what to run again.)
    """
    paths = jobs.train_inputs(
        study, pipeline_of(wildcards.pipeline), wildcards.dataset, wildcards.seed
    )
    given = {
        name: folder_of(input[name]) if path.endswith("/") else input[name]
        for name, path in paths.items()
    }
    return jobs.train_input_options(given)


def training_hardware_options(wildcards, resources):
    """Where and how fast a training runs. (A parameter made from ``resources`` is not looked at when Snakemake
    decides what to run again: it must retrain nothing.)
    """
    return jobs.train_hardware_options(study, pipeline_of(wildcards.pipeline))


def waiting_options(wildcards, resources):
    """How long a quiet machine is waited for: made from ``resources`` too, as it must measure nothing anew."""
    return jobs.waiting_options(study)


@cache
def training_of(pipeline):
    """The settings of a training, validated once and not for every job."""
    return study.training_of(pipeline_of(pipeline))


@cache
def train_arguments(pipeline):
    return jobs.train(study, pipeline_of(pipeline))


@cache
def asked_resource(estimate, otherwise, *arguments):
    """A resource from the model's size, computed once; ``otherwise`` where the hub alone knows the size."""
    try:
        return estimate(study, *arguments)
    except PipeOpsError:
        return otherwise


def training_memory(wildcards, attempt):
    pipeline = pipeline_of(wildcards.pipeline)
    return attempt * asked_resource(planning.training_memory_mb, 16000, pipeline)


def training_minutes(wildcards, attempt):
    pipeline = pipeline_of(wildcards.pipeline)
    return attempt * asked_resource(
        planning.training_minutes, 240, pipeline, wildcards.dataset
    )


def inference_memory(wildcards, attempt):
    return attempt * asked_resource(planning.inference_memory_mb, 8000)


def evaluating_minutes(wildcards, attempt):
    return attempt * asked_resource(planning.evaluating_minutes, 120, wildcards.dataset)


def vocabulary_inputs(wildcards):
    """The backbones that V prunes, and the texts that say which tokens are kept."""
    folders = {"base": jobs.BASE, "student": STUDENT}
    files = {
        name: together(f"<results>/{folders[name]}", USED_BACKBONE)
        for name in jobs.pruned_backbones(study)
    }
    files["texts"] = local(jobs.vocabulary_texts(study))
    if wildcards.dataset in study.tasks:
        files["rows"] = "<results>/rows/{dataset}/train.parquet"
    return files


def vocabulary_input_options(wildcards, input):
    options = ["--backbone", folder_of(input.base)]
    if "student" in input.keys():
        options += ["--student", folder_of(input.student)]
    if "rows" in input.keys():
        options += ["--rows", input.rows]
    return options


def price_inputs(wildcards):
    """Whose shape is priced, and the lengths of its inputs."""
    pipeline = orderings(wildcards.operators)[0]
    folder = jobs.prepared(pipeline, wildcards.dataset)
    files = {
        "backbone": f"<results>/{folder}{jobs.BASE}config.json",
        "data": f"<results>/{folder}data/{wildcards.dataset}/validation.parquet",
    }
    if pipeline.transformed:
        files["vocabulary"] = f"<results>/{folder}{jobs.BASE}vocabulary.json"
    if jobs.priced_with_student(study, wildcards.operators):
        files["student"] = f"<results>/{folder}{STUDENT}config.json"
    return files


def price_input_options(wildcards, input):
    options = ["--backbone", folder_of(input.backbone), "--lengths", input.data]
    if "student" in input.keys():
        options += ["--student", folder_of(input.student)]
    return options


def price_of(wildcards):
    """The price of a pipeline: that of its set of operators."""
    operators = pipeline_of(wildcards.pipeline).operators
    return f"{PRICED}/prices/{wildcards.dataset}/{operators}.csv"


def price_details_of(wildcards):
    return str(Path(price_of(wildcards)).with_suffix(".json"))


def all_cores(wildcards):
    """Every core of this run. A report is made without cores, and runs nothing."""
    try:
        return workflow.cores
    except WorkflowError:
        return 1


def curves_of(pipelines):
    """The measurements of these pipelines, for every dataset, all seeds in one file."""
    return expand(
        "<results>/curves/{dataset}/{pipeline}.csv",
        dataset=study.datasets,
        pipeline=[str(pipeline) for pipeline in pipelines],
    )


def answers_of(pipelines):
    """The answers of these pipelines, for every dataset and seed."""
    return expand(
        f"{MEASURED}/answers/{{dataset}}/{{pipeline}}/seed{{seed}}.parquet",
        dataset=study.datasets,
        pipeline=pipelines,
        seed=study.seeds,
    )


def prices_of(pipelines):
    """The prices of these pipelines, each set of operators once."""
    return expand(
        f"{PRICED}/prices/{{dataset}}/{{operators}}.csv",
        dataset=study.datasets,
        operators=list(
            dict.fromkeys(pipeline_of(pipeline).operators for pipeline in pipelines)
        ),
    )


def beside(curves, suffix):
    """What was written beside these measurements."""
    return [str(Path(curve).with_suffix(suffix)) for curve in curves]


def analysed(analysis):
    """The measurements that an analysis reads: a function, as a study may leave it nothing to show."""

    def inputs(wildcards):
        try:
            pipelines = analysis.measured(study)
        except PipeOpsError as error:
            # Snakemake follows every exception of an input function with a traceback, but for this one.
            sys.exit(str(error))
        files = {"curves": curves_of(pipelines)}
        if analysis.exits:
            files["exits"] = beside(files["curves"], ".exits.csv")
        if analysis.replays:
            files["answers"] = answers_of(pipelines)
            files["prices"] = prices_of(pipelines)
            files["details"] = beside(files["prices"], ".json")
        return files

    return inputs


def written(analysis):
    """The files of an analysis by form, those filed in the report under its category."""
    files = {}
    for form, called in FORMS[analysis.kind].items():
        path = f"<results>/{analysis.path(form)}"
        if called:
            path = report(
                path,
                caption=f"../report/{analysis.name}.rst",
                category=analysis.category,
                labels={"result": analysis.title, "form": called},
            )
        files[form] = path
    return files


def all_results():
    """Every table and figure, and what they come from."""
    files = [
        f"<results>/{analysis.path(form)}"
        for analysis in asked_for(study)
        for form in (["csv"] if analysis.kind == "table" else ["png", "pdf"])
    ]
    # Where prices and answers are published, there is no model to run.
    checks = expand(
        "<results>/checks/{dataset}/{pipeline}.csv",
        dataset=study.datasets,
        pipeline=[] if study.answers else [str(one) for one in study.orderings],
    )
    return [*files, *checks, "<results>/study.html"]


def show_results():
    """Print the tables that this run made."""
    for analysis in TABLES:
        table = Path(workflow.pathvars.get("results")) / analysis.path("md")
        if table.exists() and table.stat().st_mtime > STARTED:
            print(table.read_text())
