"""The command line: one command per rule of the workflow.

Heavy modules are imported by the commands that need them, so that each job starts as fast as it can.
"""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from pipeops import __version__
from pipeops.data.synthetic import SYNTHETIC_TASKS
from pipeops.data.tasks import TASKS, Task, split_batches
from pipeops.errors import PipeOpsError, Terminated, errors_in_one_line, of_system
from pipeops.files import beside, refuse_unwritable, writing
from pipeops.operators.builtin import BUILTIN, VocabularySection
from pipeops.progress import tracked
from pipeops.reading import reason
from pipeops.settings import (
    TINY,
    CheckSection,
    Confidence,
    Device,
    Examples,
    ExitsSection,
    ExitTraining,
    Length,
    MaxLength,
    MeasuringSection,
    Parallel,
    Percentage,
    PositiveInt,
    PretrainingSection,
    PricesSection,
    Rate,
    Section,
    Seed,
    Split,
    TaskSection,
    TrainingSettings,
    finding,
    limits,
)
from pipeops.text import as_given, nearest, unknown_key

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T", bound=Section)
EXIT_STATUS = {
    0: "done",
    1: "refused, for a reason that standard error gives in one line",
    2: "the command line cannot be understood",
    130: "interrupted",
    Terminated.STATUS: "terminated (SIGTERM); a training has saved the step that it was in",
}
_FIRST_OF_OURS = 3
"""The first number of a file that is no standard stream."""
app = typer.Typer(
    no_args_is_help=True,
    help="Apply efficiency operators to transformers, measure them, recommend one and deploy it.",
    epilog=f"Exit status: {'; '.join(f'{status} {meaning}' for status, meaning in EXIT_STATUS.items())}.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OPERATOR_SECTIONS: Mapping[str, type[Section]] = {o.section: o.settings for o in BUILTIN if o.section}
TRAIN_SECTIONS: Mapping[str, type[Section]] = {"training": TrainingSettings, "exits": ExitTraining}
PRICE_SECTIONS: Mapping[str, type[Section]] = {"prices": PricesSection, "exits": ExitTraining}
CHECK_SECTIONS: Mapping[str, type[Section]] = {
    "check": CheckSection,
    "prices": PricesSection,
    "measuring": MeasuringSection,
    "exits": ExitsSection,
}
SETTINGS_HELP = "A JSON object of sections, as in the configuration; may be repeated, later over earlier."


def command(example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose help ends with an example; the list of commands shows its whole first line."""
    lines = "\n".join(f"  {line}" for line in example.strip().splitlines())

    def register(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(short_help=function.__doc__, epilog=f"\b\nExample:\n{lines}")(function)

    return register


def _keys(section: type[Section]) -> str:
    return ", ".join(section.model_fields)


def _sections(sections: Mapping[str, type[Section]]) -> str:
    """Say which keys the sections of a settings document have."""
    return "; ".join(f"`{name}`: {_keys(section)}" for name, section in sections.items())


def _number(kind: Any, help: str) -> Any:
    """An option that takes a number of one of the settings' types."""
    return typer.Option(help=help, **limits(kind))


RunSeed = Annotated[int, _number(Seed, "Seed of the run.")]
Data = Annotated[Path, typer.Option(help="Tokenised examples.")]
Output = Annotated[Path, typer.Option(help="Where to write.")]
Backbone = Annotated[Path, typer.Option(help="Folder of the pretrained encoder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Take the options that come before a command."""


ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", help="Over the defaults, as Snakemake's; may be repeated."),
]
AskedDataset = Annotated[str | None, typer.Option("--dataset", help="Which, where the study has several.")]


@command("""
pipeops init reviews.csv tiny --output study.yaml
pipeops init train.csv nreimers/MiniLM-L6-H384-uncased --validation dev.csv --text title --text body
""")
def init(
    data: Annotated[Path, typer.Argument(help="Labelled training rows: .csv, .tsv, .jsonl or .parquet.")],
    model: Annotated[
        str, typer.Argument(help="`tiny`, a hub id, or the folder of an encoder or a fine-tuned classifier.")
    ],
    validation: Annotated[
        Path | None, typer.Option(help="Validation rows; default: a part of the training rows is held out.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Column of texts; repeat it for pairs. Default: guessed.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of labels; default: guessed.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the task; default: that of the file.")] = None,
    output: Annotated[Path, typer.Option(help="The configuration to write.")] = Path("study.yaml"),
) -> None:
    """Write a configuration for data of your own; columns, longest input and recipe are guessed."""
    from pipeops.study.starting import start

    with writing(output):
        print(start(data, model, output, validation=validation, text=text or (), label=label, name=name))


@command("""
pipeops backbone tiny --task generated-sentiment --output results/backbones/base
pipeops backbone FacebookAI/roberta-base --output results/backbones/base
""")
def backbone(
    source: Annotated[str, typer.Argument(help="Hub id, folder, or `tiny`.")],
    output: Output,
    teacher: Annotated[Path | None, typer.Option(help="Backbone whose student this will be.")] = None,
    settings: Annotated[
        str, typer.Option(help=f"Of `tiny`: a JSON object with keys {_keys(PretrainingSection)}.")
    ] = "{}",
    task: Annotated[
        list[str] | None,
        typer.Option(help="Generated task that `tiny` is pretrained for; may be repeated. Default: all."),
    ] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="Rows of one's own that `tiny` is pretrained on instead; may be repeated."),
    ] = None,
    max_length: Annotated[int, _number(MaxLength, "Longest of those texts in tokens.")] = 128,
    classifier: Annotated[bool, typer.Option("--classifier", help="Fetch it with its classifier.")] = False,
) -> None:
    """Fetch a pretrained encoder, or pretrain the built-in one."""
    with writing(output, folder=True, inputs=[teacher, None if source == TINY else Path(source)]):
        if source == TINY:
            from pipeops.training.pretraining import pretrain_tiny, pretrain_tiny_on

            parsed = _parse(PretrainingSection, _settings(settings), "pretraining")
            if rows:
                pretrain_tiny_on(rows, output, parsed, max_length=max_length)
                return
            tasks = task or list(SYNTHETIC_TASKS)
            if unknown := [name for name in tasks if name not in SYNTHETIC_TASKS]:
                raise PipeOpsError(
                    f"--task: '{unknown[0]}' is not a generated task{nearest(unknown[0], SYNTHETIC_TASKS)}; "
                    f"known are {', '.join(SYNTHETIC_TASKS)}"
                )
            pretrain_tiny(output, parsed, tasks)
        elif classifier:
            from pipeops.models.classifiers import fetch_classifier

            fetch_classifier(source, output)
        else:
            from pipeops.models.backbones import fetch_backbone

            fetch_backbone(source, output, teacher=teacher)


@command("""
pipeops rows reviews --output results/rows/reviews \\
  --settings '{"files": {"train": "reviews.csv"}, "text": "review", "label": "stars", "held_out": 0.2}'
""")
def rows(
    dataset: Annotated[str, typer.Argument(help="Name of a task of one's own.")],
    output: Annotated[Path, typer.Option(help="Folder for the rows of both splits, and what they are.")],
    settings: Annotated[
        str, typer.Option(help=f"The task as in `tasks`: a JSON object with keys {_keys(TaskSection)}.")
    ],
) -> None:
    """Read one's own data once: check, count and split them."""
    from pipeops.data.own import gather

    with writing(output, folder=True):
        section = _parse(TaskSection, _settings(settings), f"tasks.{dataset}")
        print(gather(dataset, section, output).text(dataset))


Glue = Annotated[str, typer.Option(help="Hub id or folder of GLUE.")]
Drawn = Annotated[int | None, _number(Examples, "How many are drawn; default: all.")]
OwnRows = Annotated[Path | None, typer.Option(help="Rows of a task of one's own.")]


def _rows(
    dataset: str, split: Split, *, glue: str, examples: int | None, rows: Path | None
) -> "tuple[Task, Iterator[pa.Table]]":
    """A task and the rows of one of its splits."""
    if rows is not None:
        from pipeops.data.own import row_batches, task_of

        return task_of(rows), row_batches(rows, examples=examples)
    if dataset in TASKS:
        return TASKS[dataset], split_batches(TASKS[dataset], split, glue=glue, examples=examples)
    raise PipeOpsError(
        f"unknown dataset '{dataset}'{nearest(dataset, TASKS)}; known are {', '.join(TASKS)}; "
        "of a task of your own, name the --rows"
    )


@command("""
pipeops vocabulary generated-sentiment --backbone results/backbones/base \\
  --output results/vocabulary/generated-sentiment/backbones
""")
def vocabulary(
    dataset: Annotated[str, typer.Argument(help="Name of the task.")],
    backbone: Backbone,
    output: Annotated[Path, typer.Option(help="Folder for the pruned backbones, `base` and `student`.")],
    student: Annotated[Path | None, typer.Option(help="Folder of D's student, to be pruned alike.")] = None,
    glue: Glue = "nyu-mll/glue",
    examples: Drawn = None,
    rows: OwnRows = None,
    settings: Annotated[
        str, typer.Option(help=f"What else is kept: a JSON object with keys {_keys(VocabularySection)}.")
    ] = "{}",
) -> None:
    """Prune backbones to the tokens of a dataset's training texts, for V."""
    from pipeops.operators.vocabulary import prune_backbones

    section = _parse(VocabularySection, _settings(settings), "vocabulary")
    outputs = {backbone: output / "base"} | ({student: output / "student"} if student else {})

    def texts() -> Iterator[list[str]]:
        task, batches = _rows(dataset, "train", glue=glue, examples=examples, rows=rows)
        for batch in batches:
            yield from (batch[column].to_pylist() for column in task.columns)

    with writing(output, folder=True, inputs=[backbone, student, rows]):
        found = prune_backbones(backbone, outputs, texts, section)
    print(f"{dataset}: {len(found.kept):,} of {found.before:,} tokens are kept")


@command("""
pipeops tokenise generated-sentiment train --backbone results/backbones/base \\
  --output results/data/generated-sentiment/train.parquet
""")
def tokenise(
    dataset: Annotated[str, typer.Argument(help="Name of the task.")],
    split: Annotated[Split, typer.Argument(help="Which half.")],
    backbone: Backbone,
    output: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    glue: Glue = "nyu-mll/glue",
    max_length: Annotated[int, _number(MaxLength, "Longest input in tokens.")] = 128,
    examples: Drawn = None,
    rows: OwnRows = None,
) -> None:
    """Tokenise one split of a dataset."""
    from pipeops.data.tokenised import tokenise as run
    from pipeops.models.architectures import architecture
    from pipeops.models.backbones import load_tokenizer

    with writing(output, inputs=[rows]):
        task, batches = _rows(dataset, split, glue=glue, examples=examples, rows=rows)
        tokenizer = load_tokenizer(backbone)
        known = architecture(str(backbone))
        if known and max_length > known.max_length:
            raise PipeOpsError(
                f"model.max_length: {max_length} is more than the backbone's {known.max_length} positions; "
                "lower it"
            )
        total = min(examples or task.rows[split], task.rows[split])
        shown = tracked(batches, "tokenise", total=total, size=len)
        counts = run(task, shown, tokenizer, output, max_length=max_length)
    print(counts.text(f"{dataset}, {split}", max_length))


@command("""
pipeops train P --parent results/models/generated-sentiment/O/seed1 --seed 1 \\
  --backbone results/backbones/base --data results/data/generated-sentiment/train.parquet \\
  --output results/models/generated-sentiment/P/seed1 --settings '{"pruning": {"keep_heads": 0.5}}'
""")
def train(
    operator: Annotated[str, typer.Argument(help="Letter of the operator: O, V, D, P, E, C, or added.")],
    backbone: Backbone,
    data: Data,
    output: Output,
    seed: RunSeed,
    parent: Annotated[Path | None, typer.Option(help="Checkpoint that the operator is applied to.")] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=PATH, an input that the operator declares; may be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{SETTINGS_HELP} {_sections(TRAIN_SECTIONS)}; and the "
            f"operator's own. {_sections(OPERATOR_SECTIONS)}."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    gpu_slots: Annotated[int, _number(Parallel, "Trainings that share one GPU.")] = 1,
    processes: Annotated[int, _number(Parallel, "Processes, each with a GPU of its own.")] = 1,
    compiled: Annotated[bool, typer.Option(help="Compile the model before it is trained.")] = False,
    state: Annotated[Path, typer.Option(help="Where interrupted trainings resume from.")] = Path(
        ".pipeops/state"
    ),
) -> None:
    """Apply one trained operator."""
    from pipeops.operators.registry import declared
    from pipeops.training.gpus import leased

    declaration = declared(operator)
    own = {declaration.section: declaration.settings} if declaration.section else {}
    parsed = _parse_sections({**TRAIN_SECTIONS, **own}, settings)
    inputs = _named_paths(extra or [])
    refuse_unwritable(output, folder=True, inputs=[parent, backbone, *inputs.values()])
    refuse_unwritable(state, folder=True)
    several = processes > 1 and "RANK" not in os.environ
    with leased(device, slots=gpu_slots, gpus=processes):
        from pipeops.training.job import Job
        from pipeops.training.job import train as run

        run(
            Job(
                operator=operator,
                parent=parent,
                backbone=backbone,
                data=data,
                inputs=inputs,
                seed=seed,
                settings=parsed["training"],
                exits=parsed["exits"],
                own_settings=parsed.get(declaration.section, declaration.settings()),
                device=device,
                compiled=compiled,
            ),
            output,
            state_root=state,
            start_several=partial(_again_in, processes) if several else None,
        )


@command("""
pipeops export results/models/generated-sentiment/P/seed1 \\
  --output results/onnx/generated-sentiment/P/seed1
""")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    output: Output,
    confidence: Annotated[Confidence, typer.Option(help="How sure an exit is.")] = "max_probability",
    inline: Annotated[
        bool, typer.Option("--inline", help="Write no ONNX functions, for runtimes that know none.")
    ] = False,
    layer: Annotated[
        int | None,
        typer.Option(help="End the model at the exit after this layer: a plain graph for any batch."),
    ] = None,
) -> None:
    """Export a checkpoint: `model[-int8].onnx` to deploy, `profile[-int8].onnx` to measure."""
    from pipeops.onnx.export import export as run

    with writing(output, folder=True, inputs=[checkpoint]):
        run(checkpoint, output, confidence=confidence, inline=inline, layer=layer)


@command("""
pipeops evaluate results/onnx/generated-sentiment/P/seed1 \\
  --data results/data/generated-sentiment/validation.parquet \\
  --output results/answers/generated-sentiment/P/seed1.parquet \\
  --dataset generated-sentiment --pipeline P --seed 1
""")
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of the exported pipeline.")],
    data: Data,
    output: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    dataset: Annotated[str, typer.Option(help="For the record.")],
    pipeline: Annotated[str, typer.Option(help="For the record.")],
    seed: RunSeed,
    threads: Annotated[int, _number(Parallel, "CPU threads.")] = 1,
) -> None:
    """Ask every exit about every example, in fp32 and int8: logits, from which any exit rule is replayed."""
    from pipeops.measuring.evaluate import evaluate as run

    with writing(output, inputs=[data]):
        run(model, data, output, dataset=dataset, pipeline=pipeline, seed=seed, threads=threads)


@command("""
pipeops price --backbone tiny --lengths lengths.txt --output prices.csv
pipeops price --backbone tiny --lengths lengths.txt --operators DE --output DE.csv
""")
def price(
    backbone: Annotated[
        str, typer.Option(help="Folder of the encoder, or `tiny`; for V the encoder that it pruned.")
    ],
    lengths: Annotated[Path, typer.Option(help="Tokenised examples, or a text with one length a line.")],
    operators: Annotated[
        str | None, typer.Option(help="A set such as DPE, O for none; default: a list of every pipeline.")
    ] = None,
    student: Annotated[
        Path | None, typer.Option(help="Folder of D's student; default: alternate layers.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The CSV to write.")] = None,
    max_length: Annotated[
        int | None, _number(Length, "Padded length; default: that of the examples, or the longest.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(help=f"{SETTINGS_HELP} {_sections({**PRICE_SECTIONS, **OPERATOR_SECTIONS})}."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """Measure what leaving at each exit costs on this CPU, on random weights: nothing need be trained."""
    from pipeops.measuring.commands import PriceInputs, price_pipelines, price_set
    from pipeops.measuring.price_list import price_list_text
    from pipeops.operators.registry import OPERATORS

    declared: dict[str, type[Section]] = {o.section: o.settings for o in OPERATORS.values() if o.section}
    parsed = _parse_sections({**PRICE_SECTIONS, **declared}, settings)
    inputs = PriceInputs(backbone, lengths, student, max_length, parsed)
    if operators is None:
        with writing(output, inputs=[lengths]) if output else nullcontext():
            table = price_pipelines(inputs, output)
        print(table.to_json(orient="records", indent=2) if as_json else price_list_text(table))
        return
    if as_json:
        raise PipeOpsError("--json: prints the list of every pipeline; leave --operators or --json out")
    if output is None:
        raise PipeOpsError("--output: is needed with --operators; name the CSV to write")
    with writing(output, inputs=[lengths]), writing(beside(output)):
        price_set(operators, inputs, output)


@command("""
pipeops check results/onnx/generated-sentiment/PE/seed1 \\
  --original results/onnx/generated-sentiment/O/seed1 \\
  --data results/data/generated-sentiment/validation.parquet \\
  --answers results/answers/generated-sentiment/PE/seed1.parquet \\
  --prices results/prices/generated-sentiment/PE.csv --output results/checks/generated-sentiment/PE.csv
""")
def check(
    model: Annotated[Path, typer.Argument(help="Folder of the exported pipeline.")],
    original: Annotated[Path, typer.Option(help="Folder of the exported O.")],
    data: Data,
    answers: Annotated[Path, typer.Option(help="What its exits answer.")],
    prices: Annotated[Path, typer.Option(help="What leaving at them costs.")],
    output: Annotated[Path, typer.Option(help="The CSV to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(help=f"{SETTINGS_HELP} {_sections(CHECK_SECTIONS)}."),
    ] = None,
) -> None:
    """Really run a pipeline at some thresholds: same exits as replayed, and the time that its price says."""
    from pipeops.measuring.commands import check_pipeline

    parsed = _parse_sections(CHECK_SECTIONS, settings)
    with writing(output, inputs=[data, answers, prices]), writing(beside(output)):
        check_pipeline(model, original, data, answers, prices, output, sections=parsed)


@command("pipeops validate --configfile configs/paper.yaml")
def validate(configfile: ConfigFiles = None) -> None:
    """Say whether a configuration can be run, in a second and without Snakemake."""
    from pipeops.study.config import read_study

    study = read_study(configfile or [])
    for warning in study.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    runs = 0 if study.answers else len(study.datasets) * len(study.seeds)
    trainings = runs * len(study.trainings)
    print(f"valid: {', '.join(study.datasets)}; {trainings} trainings, results in {study.pathvars.results}")


@command("pipeops plan --configfile configs/paper.yaml --gpus 8 --examples-per-second 400")
def plan(
    configfile: Annotated[
        list[Path] | None, typer.Option(help="Over the defaults, as Snakemake's; may be repeated.")
    ] = None,
    gpus: Annotated[int, _number(PositiveInt, "GPUs that train at the same time.")] = 1,
    jobs_per_gpu: Annotated[int, _number(Parallel, "Trainings that share one GPU.")] = 1,
    examples_per_second: Annotated[
        float | None,
        _number(Rate, "Rate of one fine-tuning of the backbone at --length tokens; default: measured here."),
    ] = None,
    length: Annotated[int, _number(Length, "Tokens per example of that rate.")] = 128,
    as_json: AsJson = False,
) -> None:
    """Say what a study costs without running it: jobs, disk, hours of GPUs or of this CPU."""
    from pipeops.pipeline import Pipeline
    from pipeops.study.config import read_study
    from pipeops.study.plan_text import plan_report, plan_text
    from pipeops.study.planning import plan as make_plan
    from pipeops.study.planning import shape_of

    study = read_study(configfile or [])
    planned = make_plan(study)
    original = shape_of(study, Pipeline("O"))
    source = "given"
    device: Literal["GPU", "CPU"] = "GPU"
    if examples_per_second is None:
        from pipeops import hardware
        from pipeops.training import throughput

        settings = study.training.of("O")
        length = min(length, original.max_length)
        examples_per_second = throughput.examples_per_second(original, settings, length=length)
        precision = hardware.compute_dtype(settings.precision)
        name = hardware.device_name()
        if name == "cpu":
            device, threads = "CPU", settings.threads
            name = f"{hardware.cpu()['model']} with {threads} thread{'s' if threads > 1 else ''}"
        source = f"measured on {name}, batch {settings.batch_size}, {precision}"
    report = plan_report(
        planned,
        original,
        examples_per_second=examples_per_second,
        source=source,
        device=device,
        length=length,
        gpus=gpus,
        jobs_per_gpu=jobs_per_gpu,
    )
    print(json.dumps(report, indent=2) if as_json else plan_text(report))


@command("pipeops publish published --configfile config.yaml")
def publish(
    output: Annotated[Path, typer.Argument(help="Folder for prices, answers and a README of them.")],
    configfile: ConfigFiles = None,
) -> None:
    """Collect a finished study's prices and answers, from which all its results are made without training."""
    from pipeops.study.config import read_study
    from pipeops.study.publishing import publish as run

    files = configfile or []
    with writing(output, folder=True):
        run(read_study(files), output, configfiles=files)


@command("pipeops predict --configfile config.yaml")
def predict(
    configfile: ConfigFiles = None,
    dataset: AskedDataset = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every threshold of every pipeline.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw the curves: a .png or .pdf file.")] = None,
) -> None:
    """Say what every pipeline gives, measured or predicted, from the prices and runs that exist."""
    from pipeops.study.recommending import Asked, predictions, predictions_text

    if plot and plot.suffix not in (".png", ".pdf"):
        raise PipeOpsError(f"--plot: '{plot}' is no PNG or PDF; give a name that ends in .png or .pdf")
    with writing(plot) if plot else nullcontext():
        asked = Asked.read(configfile or [], dataset)
        table = predictions(asked)
        if plot:
            from pipeops.analysis import figures

            figures.save(figures.predictions(table), {"plot": str(plot)})
    print(table.to_json(orient="records", indent=2) if as_json else predictions_text(asked, table))


@command("pipeops recommend --max-time 5ms --max-size 30MB")
def recommend(
    configfile: ConfigFiles = None,
    dataset: AskedDataset = None,
    max_time: Annotated[
        str | None,
        typer.Option(help="Milliseconds an input, such as 5ms, or a part of O's time, such as 0.2."),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Least value of the task's metric: a fraction, such as 0.9.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Percentage points of the metric below O; what Q, and leaving early, may cost."),
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Of model.onnx, such as 30MB.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer and all runners-up.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Train and measure the answer, by snakemake, and compare.")
    ] = False,
    cores: Annotated[int, _number(PositiveInt, "Of --verify.")] = 2,
) -> None:
    """Say which pipeline to take under a budget, from the prices and runs that exist."""
    from pipeops.analysis.recommend import Budget
    from pipeops.study import recommending

    time, in_ms = _quantity("--max-time", max_time, "ms")
    size, _ = _quantity("--max-size", max_size, "MB")
    budget = Budget(
        max_time_ms=time if in_ms else None,
        max_time=None if in_ms else time,
        min_accuracy=min_accuracy,
        max_drop=max_drop,
        max_size=size,
    )
    answer = recommending.recommendation(recommending.Asked.read(configfile or [], dataset), budget)
    if not as_json:
        print(answer.text(), flush=True)
    measured = recommending.verify(answer, cores=cores) if verify else None
    if as_json:
        verified = {"verified": measured and measured.document()} if verify else {}
        print(json.dumps(answer.document() | verified, indent=2))
    elif verify:
        print(f"\n{measured.text() if measured else 'It was measured before; there is nothing to verify.'}")


@command("pipeops deploy DEPLQ deployed --dataset generated-sentiment --seed 1")
def deploy(
    pipeline: Annotated[str, typer.Argument(help="What to deploy: letters in order, L and Q too, as DEPLQ.")],
    output: Annotated[Path, typer.Argument(help="Folder of the deployed model.")],
    dataset: Annotated[str, typer.Option(help="Task that it was trained on.")],
    seed: RunSeed,
    configfile: Annotated[
        list[Path] | None,
        typer.Option(
            "--configfile",
            help="Of the study, for its results, its task's metric and exits.confidence; may be repeated.",
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Results of the study; default: where its configuration puts them.")
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="How sure an exit must be, or, with patience, how many exits must agree; repeat it for one "
            "per exit but the last. Default: see --within."
        ),
    ] = None,
    within: Annotated[
        float,
        _number(
            Percentage,
            "Points of the metric on the validation split that a threshold chosen for you may cost.",
        ),
    ] = 0.5,
    max_length: Annotated[
        int | None, _number(Length, "Longest input in tokens; default: that of the study.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the pretrained encoder, for the model card.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a folder that classifies texts with onnxruntime, tokenizers and numpy alone."""
    from pipeops.measuring.classes import METRICS
    from pipeops.pipeline import Pipeline
    from pipeops.study.config import read_study
    from pipeops.study.deploying import Choice, deploy_choice

    study = read_study(configfile or [])
    choice = Choice(
        results=results or Path(study.pathvars.results),
        dataset=dataset,
        pipeline=Pipeline(pipeline),
        seed=seed,
        thresholds=threshold or (),
        within=within,
        metric=METRICS[study.metric(dataset)],
        confidence=study.exits.confidence,
        max_length=max_length,
        base_model=base_model,
    )
    with writing(output, folder=True):
        policy = deploy_choice(choice, output)
    if as_json:
        print(json.dumps({"folder": str(output)} | asdict(policy), indent=2))
        return
    at = f", threshold {policy.thresholds_text}" if policy.thresholds else ""
    print(f"{output}: {policy.pipeline}{at}; try: python {output / 'classify.py'} --help")


@command("""
pipeops score deployed --data reviews.csv
pipeops score deployed --data pairs.jsonl --text question --text answer --label relevant --json
""")
def score(
    folder: Annotated[
        Path, typer.Argument(help="What `pipeops deploy` wrote, or an exported model of a study's results.")
    ],
    data: Annotated[Path, typer.Option(help="Labelled rows: .csv, .tsv, .jsonl or .parquet.")],
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of texts; repeat it for pairs. Default: those of the model's task."),
    ] = None,
    label: Annotated[str, typer.Option(help="Column of labels: class names, or class ids.")] = "label",
    int8: Annotated[bool, typer.Option("--int8", help="Of an exported model, take the int8 graph.")] = False,
    threads: Annotated[int, _number(Parallel, "CPU threads.")] = 1,
    configfile: Annotated[
        list[Path] | None,
        typer.Option(
            "--configfile",
            help="Of the study of an exported model, for exits.confidence; may be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how good a model is on new rows: accuracy, each class, and accuracy and time by threshold."""
    from pipeops.measuring.score import score_text
    from pipeops.study.scoring import score as run

    scored = run(
        folder,
        data,
        text=text or (),
        label=label,
        int8=int8,
        threads=threads,
        configfiles=configfile or (),
    )
    print(json.dumps(scored.report(), indent=2, ensure_ascii=False) if as_json else score_text(scored))


def _quantity(option: str, text: str | None, unit: str) -> tuple[float | None, bool]:
    """Read a number that may have a unit; return whether it has."""
    if text is None:
        return None, False
    number = text.removesuffix(unit)
    try:
        return float(number), number != text
    except ValueError:
        raise PipeOpsError(f"{option}: {as_given(text)} is no number, with {unit} or without") from None


def _again_in(processes: int) -> None:
    """Run this command line again in several processes, one training in all, by torchrun."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", *torchrun, "-m", "pipeops", *sys.argv[1:]]
    with subprocess.Popen(command) as run:
        try:
            run.wait()
        except Terminated:
            run.terminate()  # and it ends its processes
            raise
    if run.returncode:
        raise PipeOpsError(f"a training of {processes} processes failed; its first error is above")


def _parse(section: type[T], document: Any, name: str) -> T:
    try:
        return TypeAdapter(section).validate_python(document)
    except ValidationError as error:
        raise PipeOpsError(finding(error.errors()[0], section, within=name)) from None


def _parse_sections(sections: Mapping[str, type[Section]], texts: Sequence[str] | None) -> dict[str, Any]:
    """Read documents with several sections, later over earlier; what they leave out has its defaults."""
    document: dict[str, Any] = {}
    for given in map(_settings, texts or []):
        if not isinstance(given, dict):
            raise PipeOpsError(
                f"--settings: {as_given(given)} is no object of sections; write one, such as {{}}"
            )
        for name, section in given.items():
            if name not in sections:
                raise PipeOpsError(f"--settings: {unknown_key(name, name, list(sections))}")
            if not isinstance(section, dict):
                _parse(sections[name], section, name)
            document[name] = document.get(name, {}) | section
    return {name: _parse(section, document.get(name, {}), name) for name, section in sections.items()}


def _settings(text: str) -> Any:
    """Read a JSON document, in which no key may stand twice."""
    try:
        return json.loads(text, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise PipeOpsError(f"--settings: no JSON ({reason(error)}); write an object, such as {{}}") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise PipeOpsError(f"--settings: key {as_given(key)} stands there twice; remove one")
        found[key] = value
    return found


def _named_paths(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=PATH``s."""
    paths = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise PipeOpsError(f"--input: '{text}' is not of the form NAME=PATH")
        if name in paths:
            raise PipeOpsError(f"--input: '{name}' is named twice; name it once")
        paths[name] = Path(path)
    return paths


def main() -> None:
    """Run the command line; bad input is one line on standard error, with exit status 1."""
    _open_standard_streams()
    signal.signal(signal.SIGTERM, _terminated)
    with errors_in_one_line():
        try:
            app()
        finally:
            _flush()


def _open_standard_streams() -> None:
    """Where a standard stream is closed, open it on nothing, before a file of ours gets its number.

    What standard output cannot encode is escaped, as it is on standard error.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < _FIRST_OF_OURS:
        pass
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(number), mode))
    os.close(number)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write what was printed: Python does it at its exit, too late to say in one line that a disk is full."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # whoever reads has enough, such as head
            raise of_system(error, "standard output") or error from None


def _terminated(*_: Any) -> None:
    """End as after an error, so that temporary files are removed."""
    raise Terminated("nothing is left half written; run again")
