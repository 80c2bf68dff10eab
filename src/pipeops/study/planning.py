"""What a study costs, known before anything is run: jobs, disk, and time on GPUs. Nothing heavy is imported.

Training time is counted in floating-point operations (forward 1, backward 2; a teacher's forward, importance)
and divided by the rate at which fine-tuning the backbone was measured to run. Smaller models reach a lower
rate, so their times are low estimates.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from pipeops.data.tasks import TASKS
from pipeops.models.architectures import TINY_OF_OWN_TEXTS, known_architecture
from pipeops.models.shape import INT8_SHARE, ModelShape
from pipeops.operators.declaration import CLASSIFIER, STUDENT, Work
from pipeops.operators.registry import OPERATORS, shape_after
from pipeops.pipeline import Pipeline, closure
from pipeops.study.analyses import asked_for
from pipeops.study.config import Config

GRAPH_FILES = 2
"""Graphs per precision: the one to deploy and the one to measure with."""
TRAINING_BYTES = 24
"""Per parameter: weights, gradients, AdamW's two moments, and a teacher's weights with room for a copy."""
ACTIVATION_BYTES = 80
"""Per token, layer and hidden unit, of a training step."""
INFERENCE_BYTES = 20
"""Per parameter, of exporting, or of the graphs that a measurement has open."""
PROCESS_MB = 1500
"""What Python with its libraries takes."""
LOW_GPU_RATE, LOW_CPU_RATE = 5e12, 5e10
"""Operations per second that limits of run time count with: those of a slow GPU, and of a few cores."""
LEAST_MINUTES = 30
"""Limit of any job's run time."""
TOKENIZER_BYTES = 70
"""Of a tokenizer's files, per word of its vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One node of the DAG and what it costs."""

    dataset: str
    pipeline: Pipeline
    seed: int
    flops: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What running a study means."""

    jobs: Mapping[str, int]
    """Rule -> number of jobs of the target ``all``."""
    trainings: list[Training]
    trainings_alone: int
    """How many there would be if pipelines with a common prefix did not share it."""
    checkpoint_bytes: int
    graph_bytes: int
    """Both if everything is kept."""
    peak_bytes_unkept: int
    """The peak with ``keep_checkpoints: false`` on one machine: all checkpoints, as
    trainings go first, O's graphs, and those that are being measured. A cluster may export many before."""

    @property
    def flops(self) -> float:
        """Of all trainings."""
        return sum(training.flops for training in self.trainings)


def plan(study: Config) -> Plan:
    """Count jobs, bytes and operations of a study.

    Raises:
        PipeOpsError: the architecture of the backbone or the student is not known.
    """
    # From published answers everything is made without training.
    runs = [] if study.answers else [(dataset, seed) for dataset in study.datasets for seed in study.seeds]
    shapes = {pipeline: shape_of(study, pipeline) for pipeline in study.trainings}
    trainings = [
        Training(
            dataset=dataset,
            pipeline=pipeline,
            seed=seed,
            flops=training_flops(study, pipeline, dataset),
        )
        for dataset, seed in runs
        for pipeline in study.trainings
    ]
    checkpoints = {pipeline: _checkpoint_bytes(shape) for pipeline, shape in shapes.items()}
    graphs = {pipeline: _graph_bytes(shapes[pipeline]) for pipeline in _exported(study)}
    return Plan(
        jobs=_jobs(study),
        trainings=trainings,
        trainings_alone=len(runs) * sum(len(closure([pipeline])) for pipeline in study.measured),
        checkpoint_bytes=len(runs) * sum(checkpoints.values()),
        graph_bytes=len(runs) * sum(graphs.values()),
        peak_bytes_unkept=len(runs) * (sum(checkpoints.values()) + graphs[Pipeline("O")])
        + (max(graphs.values()) if runs else 0),
    )


def wall_seconds(trainings: list[Training], *, flops_per_second: float, slots: int) -> float:
    """How long the trainings take in ``slots``, each after its parent, the longest chains first.

    Args:
        trainings: as :func:`plan` returns them, parents before children.
        flops_per_second: of one slot.
        slots: trainings at a time: GPUs times what shares one.
    """
    nodes = {(t.dataset, t.seed, t.pipeline): t for t in trainings}
    children: dict[tuple, list[tuple]] = {key: [] for key in nodes}
    ready = []
    for dataset, seed, pipeline in nodes:
        if pipeline.parent is None:
            ready.append((dataset, seed, pipeline))
        else:
            children[dataset, seed, pipeline.parent].append((dataset, seed, pipeline))
    chain: dict[tuple, float] = {}
    for key in reversed(nodes):
        chain[key] = nodes[key].flops + max((chain[child] for child in children[key]), default=0)
    waiting = [(-chain[key], number, key) for number, key in enumerate(ready)]
    heapq.heapify(waiting)
    running: list[tuple[float, int, tuple]] = []
    now, number = 0.0, len(waiting)
    while waiting or running:
        while waiting and len(running) < slots:
            _, _, key = heapq.heappop(waiting)
            number += 1
            heapq.heappush(running, (now + nodes[key].flops / flops_per_second, number, key))
        now, _, done = heapq.heappop(running)
        for child in children[done]:
            number += 1
            heapq.heappush(waiting, (-chain[child], number, child))
    return now


def training_memory_mb(study: Config, pipeline: Pipeline) -> int:
    """Memory to ask for to train a pipeline.

    Raises:
        PipeOpsError: an architecture is not known.
    """
    shape = shape_of(study, pipeline.parent or pipeline)  # the larger one, or as large
    tokens = study.training_of(pipeline).batch_size * study.model.max_length
    activations = ACTIVATION_BYTES * tokens * shape.num_layers * shape.hidden_size
    return PROCESS_MB + round((TRAINING_BYTES * shape.parameters + activations) / 1e6)


def inference_memory_mb(study: Config) -> int:
    """Memory to ask for to export or measure a pipeline, O being there too."""
    parameters = shape_of(study, Pipeline("O")).with_all_exits().parameters
    return PROCESS_MB + round(INFERENCE_BYTES * parameters / 1e6)


def training_minutes(study: Config, pipeline: Pipeline, dataset: str) -> int:
    """Run time to ask for to train a pipeline."""
    return LEAST_MINUTES + round(training_flops(study, pipeline, dataset) / LOW_GPU_RATE / 60)


def evaluating_minutes(study: Config, dataset: str) -> int:
    """Run time to ask for to evaluate a pipeline: every example is run in fp32 and in int8."""
    task = study.task(dataset)
    rows = min(study.data.validation_examples or task.rows["validation"], task.rows["validation"])
    length = min(task.mean_tokens, study.model.max_length)
    flops = 2 * rows * shape_of(study, Pipeline("O")).flops(length)[-1]
    return LEAST_MINUTES + round(flops / LOW_CPU_RATE / 60)


def shape_of(study: Config, pipeline: Pipeline) -> ModelShape:
    """The shape that a trained pipeline's model will have.

    Raises:
        PipeOpsError: an architecture is not known.
    """
    backbone = known_architecture(study.encoder, "model.backbone")
    # The classes of one's own data are not known yet; they hardly change a size.
    labels = max(len(TASKS[name].labels) if name in TASKS else 2 for name in study.datasets)
    original = backbone.shape(num_labels=labels, pooling=study.model.pooling)
    return shape_after(pipeline.trained, original, study.setup)


def training_flops(study: Config, pipeline: Pipeline, dataset: str) -> float:
    """Operations of one training at the task's mean length."""
    task, operator = study.task(dataset), OPERATORS[pipeline.operator]
    examples = min(study.data.train_examples or task.rows["train"], task.rows["train"])
    assert operator.flops is not None
    return operator.flops(
        Work(
            before=shape_of(study, pipeline.parent or pipeline),
            after=shape_of(study, pipeline),
            passes=examples * study.training_of(pipeline).epochs,
            length=min(task.mean_tokens, study.model.max_length),
            rows=task.rows,
            setup=study.setup(operator.letter),
        )
    )


def _jobs(study: Config) -> dict[str, int]:
    """Jobs per rule of the target ``all``."""
    analyses = {
        "curves": len(study.datasets) * len(study.measured),
        **{analysis.name: 1 for analysis in asked_for(study)},
        "study": 1,
    }
    if study.priced_in is not None:
        return analyses
    trained = study.answers is None
    runs, pruned = len(study.datasets) * len(study.seeds) * trained, int(study.transformed)
    splits = 2 if trained else 1  # prices need the lengths of the validation split
    inputs = {path for pipeline in study.trainings for path in study.inputs_of(pipeline.operator).values()}
    jobs = {
        "pretrain" if study.encoder == TINY_OF_OWN_TEXTS else "backbone": 1,
        "classifier": int(CLASSIFIER in inputs and trained),
        "student": int(STUDENT in inputs),
        "rows": len(study.own_datasets),
        "vocabulary": len(study.datasets) * pruned,
        "tokenise": splits * (len(study.datasets) - len(study.own_datasets)),
        "tokenise_own": splits * len(study.own_datasets),
        "tokenise_pruned": splits * (len(study.datasets) - len(study.own_datasets)) * pruned,
        "tokenise_own_pruned": splits * len(study.own_datasets) * pruned,
        "train": runs * len(study.trainings),
        "export": runs * len(_exported(study)),
        "price": len(study.datasets) * len({pipeline.operators for pipeline in study.measured}),
        "evaluate": runs * len(study.measured),
        "check": len(study.datasets) * len(study.orderings) * trained,
        **analyses,
    }
    return {rule: count for rule, count in jobs.items() if count}


def _exported(study: Config) -> list[Pipeline]:
    """The pipelines that are exported: what is measured, and O, to measure against."""
    return list(dict.fromkeys([Pipeline("O"), *study.measured]))


def _checkpoint_bytes(shape: ModelShape) -> int:
    return 4 * shape.parameters + TOKENIZER_BYTES * shape.vocab_size


def _graph_bytes(shape: ModelShape) -> int:
    return round(GRAPH_FILES * (1 + INT8_SHARE) * 4 * shape.parameters)
