"""The command line: one command per rule of the workflow.

Heavy modules are imported by the commands that need them, so that each job starts as fast as it can.
"""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from pipeops.data.tasks import TASKS
from pipeops.errors import PipeOpsError
from pipeops.files import disk_full_in_one_line
from pipeops.models.architectures import architecture
from pipeops.pipeline import Pipeline
from pipeops.settings import (
    TINY,
    Confidence,
    CostEffSection,
    Device,
    ExitTraining,
    MeasuringSection,
    PretrainingSection,
    PruningSection,
    Section,
    TrainingSettings,
)
from pipeops.study.config import read_study
from pipeops.training.gpus import leased

T = TypeVar("T", bound=Section)
app = typer.Typer(
    add_completion=False, no_args_is_help=True, help=__doc__.splitlines()[0], rich_markup_mode=None
)

Seed = Annotated[int, typer.Option(help="Seed of the run.")]
Data = Annotated[Path, typer.Option(help="Tokenised examples.")]
Output = Annotated[Path, typer.Option(help="Where to write.")]
Backbone = Annotated[Path, typer.Option(help="Folder of the pretrained encoder.")]
Settings = Annotated[str, typer.Option(help="Settings as JSON: keys of the configuration's section.")]


@app.command()
def backbone(
    source: Annotated[str, typer.Argument(help="Hub id, folder, or `tiny`.")],
    output: Output,
    teacher: Annotated[Path | None, typer.Option(help="Backbone whose student this will be.")] = None,
    settings: Settings = "{}",
) -> None:
    """Fetch a pretrained encoder, or pretrain the built-in one."""
    if source == TINY:
        from pipeops.training.pretraining import pretrain_tiny

        parsed = _parse(PretrainingSection, settings, "pretraining")
        with disk_full_in_one_line(output):
            pretrain_tiny(output, parsed)
    else:
        from pipeops.models.backbones import fetch_backbone

        with disk_full_in_one_line(output):
            fetch_backbone(source, output, teacher=teacher)


@app.command()
def tokenise(
    dataset: str,
    split: Annotated[str, typer.Argument(help="train or validation.")],
    backbone: Backbone,
    output: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    glue: Annotated[str, typer.Option(help="Hub id or folder of GLUE.")] = "nyu-mll/glue",
    max_length: Annotated[int, typer.Option(help="Longest input in tokens.")] = 128,
    examples: Annotated[int | None, typer.Option(help="Default: all.")] = None,
) -> None:
    """Load one split of a dataset and tokenise it."""
    from pipeops.data.tokenised import tokenise as run
    from pipeops.models.backbones import load_tokenizer

    if dataset not in TASKS:
        raise PipeOpsError(f"unknown dataset '{dataset}'; known are {', '.join(TASKS)}")
    tokenizer = load_tokenizer(backbone)
    known = architecture(str(backbone))
    if known and max_length > known.max_length:
        raise PipeOpsError(
            f"model.max_length: {max_length} is more than the backbone's {known.max_length} positions; "
            "lower it"
        )
    with disk_full_in_one_line(output):
        run(TASKS[dataset], split, tokenizer, output, glue=glue, max_length=max_length, examples=examples)


@app.command()
def train(
    operator: Annotated[str, typer.Argument(help="O, D, P, E or C.")],
    backbone: Backbone,
    data: Data,
    output: Output,
    seed: Seed,
    parent: Annotated[Path | None, typer.Option(help="Checkpoint that the operator is applied to.")] = None,
    student: Annotated[
        Path | None, typer.Option(help="D's pretrained student; default: alternate layers.")
    ] = None,
    importance_data: Annotated[
        Path | None, typer.Option(help="Examples for P's importance; default: --data.")
    ] = None,
    settings: Settings = "{}",
    pruning: Settings = "{}",
    costeff: Settings = "{}",
    exits: Settings = "{}",
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    gpu_slots: Annotated[int, typer.Option(min=1, help="Trainings that share one GPU.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Processes, each with a GPU of its own.")] = 1,
    compiled: Annotated[bool, typer.Option(help="Compile the model before it is trained.")] = False,
    state: Annotated[Path, typer.Option(help="Where interrupted trainings resume from.")] = Path(
        ".pipeops/state"
    ),
) -> None:
    """Apply one trained operator."""
    from pipeops.training.job import Job
    from pipeops.training.job import train as run

    job = Job(
        operator=operator,
        parent=parent,
        backbone=backbone,
        student=student,
        data=data,
        importance_data=importance_data,
        seed=seed,
        settings=_parse(TrainingSettings, settings, "training"),
        pruning=_parse(PruningSection, pruning, "pruning"),
        costeff=_parse(CostEffSection, costeff, "costeff"),
        exits=_parse(ExitTraining, exits, "exits"),
        device=device,
        compiled=compiled,
    )
    with leased(device, slots=gpu_slots, gpus=processes):
        if processes > 1 and "RANK" not in os.environ:
            _again_in(processes)
        else:
            run(job, output, state_root=state)


@app.command()
def export(
    checkpoint: Path,
    output: Output,
    confidence: Annotated[Confidence, typer.Option(help="How sure an exit is.")] = "max_probability",
) -> None:
    """Export a checkpoint: `model[-int8].onnx` to deploy, `profile[-int8].onnx` to measure."""
    from pipeops.onnx.export import export as run

    with disk_full_in_one_line(output):
        run(checkpoint, output, confidence=confidence)


@app.command()
def measure(
    model: Annotated[Path, typer.Argument(help="Folder of the exported pipeline.")],
    original: Annotated[Path, typer.Option(help="Folder of the exported O.")],
    data: Data,
    output: Annotated[Path, typer.Option(help="The CSV to write.")],
    seed: Seed = 0,
    settings: Settings = "{}",
) -> None:
    """Measure the accuracy-time tradeoff of an exported pipeline."""
    from pipeops.measuring.measure import measure as run

    with disk_full_in_one_line(output):
        run(
            model, original, data, output, settings=_parse(MeasuringSection, settings, "measuring"), seed=seed
        )


@app.command()
def plan(
    configfile: Annotated[
        list[Path] | None, typer.Option(help="Over the defaults, as Snakemake's; may be repeated.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that train at the same time.")] = 1,
    jobs_per_gpu: Annotated[int, typer.Option(min=1, help="Trainings that share one GPU.")] = 1,
    examples_per_second: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Rate of one fine-tuning of the backbone at --length tokens; default: measured here.",
        ),
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Tokens per example of that rate.")] = 128,
) -> None:
    """Say what a study costs without running it: jobs, disk, GPU hours."""
    from pipeops.study.plan_text import plan_text
    from pipeops.study.planning import plan as make_plan
    from pipeops.study.planning import shape_of

    if examples_per_second is not None and not math.isfinite(examples_per_second):
        raise PipeOpsError(f"--examples-per-second: {examples_per_second} is no rate; give a number")
    study = read_study(configfile or [])
    planned = make_plan(study)
    original = shape_of(study, Pipeline("O"))
    source = "given"
    if examples_per_second is None:
        from pipeops import hardware
        from pipeops.training import throughput

        settings = study.training.of("O")
        length = min(length, original.max_length)
        examples_per_second = throughput.examples_per_second(original, settings, length=length)
        precision = hardware.compute_dtype(settings.precision)
        source = f"measured on {hardware.device_name()}, batch {settings.batch_size}, {precision}"
    print(
        plan_text(
            planned,
            original,
            examples_per_second=examples_per_second,
            source=source,
            length=length,
            gpus=gpus,
            jobs_per_gpu=jobs_per_gpu,
        )
    )


def _again_in(processes: int) -> None:
    """Run this command line again in so many processes, which torchrun makes one training of."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", *torchrun, "-m", "pipeops", *sys.argv[1:]]
    run = subprocess.run(command, check=False)
    if run.returncode:
        raise PipeOpsError(f"a training of {processes} processes failed; its first error is above")


def _parse(section: type[T], text: str, name: str) -> T:
    try:
        return TypeAdapter(section).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise PipeOpsError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def main() -> None:
    """Run the command line; a :class:`PipeOpsError` is printed in one line, with exit status 1."""
    try:
        app()
    except PipeOpsError as error:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {error}")
        sys.exit(1)
