"""What a study costs, known before anything is run: jobs, disk, and time on GPUs. Nothing heavy is imported.

Training time is counted in floating-point operations (forward 1, backward 2; a teacher's forward, importance)
and divided by the rate at which fine-tuning the backbone was measured to run. Smaller models reach a lower
rate, so their times are low estimates.
"""

import heapq
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pipeops.data.tasks import TASKS
from pipeops.errors import PipeOpsError
from pipeops.models.architectures import Architecture, architecture
from pipeops.models.shape import ModelShape
from pipeops.models.width import full_width, target_width, widths
from pipeops.pipeline import Pipeline, closure
from pipeops.settings import ALTERNATE, kept_count
from pipeops.study.config import Config

FORWARD_AND_BACKWARD = 3
"""Operations of a training step over those of its forward pass."""
GRAPH_FILES = 2
"""Graphs per precision: the one to deploy and the one to measure with."""
INT8_SHARE = 0.26
"""Size of an int8 graph over that of the fp32 one; see docs/performance.md."""
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
    """How many there would be if pipelines with a common beginning did not share it."""
    checkpoint_bytes: int
    graph_bytes: int
    """Both if everything is kept."""
    peak_bytes_unkept: int
    """At most so much at a time with ``keep_checkpoints: false`` on one machine: all checkpoints, as
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
    runs = [(dataset, seed) for dataset in study.datasets for seed in study.seeds]
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
        + max(graphs.values()),
    )


def wall_seconds(trainings: list[Training], *, flops_per_second: float, slots: int) -> float:
    """How long the trainings take with so many at a time, each after its parent, the longest chains first.

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
    tokens = study.training.of(pipeline.operator).batch_size * study.model.max_length
    activations = ACTIVATION_BYTES * tokens * shape.num_layers * shape.hidden_size
    return PROCESS_MB + round((TRAINING_BYTES * shape.parameters + activations) / 1e6)


def inference_memory_mb(study: Config) -> int:
    """Memory to ask for to export or measure a pipeline, O being there too."""
    parameters = shape_of(study, Pipeline("O")).with_all_exits().parameters
    return PROCESS_MB + round(INFERENCE_BYTES * parameters / 1e6)


def training_minutes(study: Config, pipeline: Pipeline, dataset: str) -> int:
    """Run time to ask for to train a pipeline."""
    return LEAST_MINUTES + round(training_flops(study, pipeline, dataset) / LOW_GPU_RATE / 60)


def measuring_minutes(study: Config, dataset: str) -> int:
    """Run time to ask for to measure a pipeline: every example is run in fp32 and in int8."""
    task = TASKS[dataset]
    rows = min(study.data.validation_examples or task.rows["validation"], task.rows["validation"])
    length = min(task.mean_tokens, study.model.max_length)
    flops = 2 * rows * shape_of(study, Pipeline("O")).flops(length)[-1]
    return LEAST_MINUTES + round(flops / LOW_CPU_RATE / 60)


def shape_of(study: Config, pipeline: Pipeline) -> ModelShape:
    """The shape that a trained pipeline's model will have.

    Raises:
        PipeOpsError: an architecture is not known.
    """
    backbone = _known(study.model.backbone, "model.backbone")
    labels = max(len(TASKS[name].labels) for name in study.datasets)
    shape = replace(_plain(backbone, num_labels=labels), pooling=study.model.pooling)
    for letter in pipeline.trained.replace("O", ""):
        if letter == "D":
            exits = shape.has_exits
            if study.model.student == ALTERNATE:
                shape = shape.cut(shape.num_layers // 2)
            else:
                student = _known(study.model.student, "model.student")
                shape = replace(_plain(student, num_labels=shape.num_labels), pooling=shape.pooling)
            shape = shape.with_all_exits() if exits else shape
        elif letter == "E":
            shape = shape.with_all_exits()
        elif letter == "P":
            kept = study.pruning
            heads = [kept_count(kept.keep_heads, count, what="keep_heads") for count in shape.heads_per_layer]
            ffn = [kept_count(kept.keep_ffn, count, what="keep_ffn") for count in shape.ffn_per_layer]
            shape = replace(shape, heads_per_layer=tuple(heads), ffn_per_layer=tuple(ffn))
        elif letter == "C":
            width = target_width(study.costeff, backbone)
            shape = shape.with_width(**asdict(width)).with_all_exits()
    return shape


def training_flops(study: Config, pipeline: Pipeline, dataset: str) -> float:
    """Operations of one training at the task's mean length."""
    task, operator = TASKS[dataset], pipeline.operator
    examples = min(study.data.train_examples or task.rows["train"], task.rows["train"])
    passes = examples * study.training.of(operator).epochs
    length = min(task.mean_tokens, study.model.max_length)

    def forward(shape: ModelShape) -> int:
        return shape.flops(length)[-1]

    own = FORWARD_AND_BACKWARD * forward(shape_of(study, pipeline))
    if pipeline.parent is None or operator == "E":
        return passes * own
    parent = shape_of(study, pipeline.parent)
    if operator == "C":
        return _costeff_flops(parent, study, passes=passes, length=length)
    total = passes * (own + forward(parent))
    if operator == "P":
        rows = task.rows[study.pruning.importance_split]
        total += min(study.pruning.importance_examples or rows, rows) * FORWARD_AND_BACKWARD * forward(parent)
    return total


def _costeff_flops(original: ModelShape, study: Config, *, passes: float, length: int) -> float:
    """Operations of C's stages; importance, a few examples, is not counted."""
    backbone = _known(study.model.backbone, "model.backbone")
    target = target_width(study.costeff, backbone)
    assistant = original.with_all_exits()
    steps = widths(full_width(backbone), target)
    # Recovery and final distillation come last.
    narrow = [assistant.with_width(**asdict(width)) for width in (*steps, target, target)]
    taught = [(assistant, original), *((model, assistant) for model in narrow)]
    return passes * sum(
        FORWARD_AND_BACKWARD * model.flops(length)[-1] + teacher.flops(length)[-1]
        for model, teacher in taught
    )


def _jobs(study: Config) -> dict[str, int]:
    """Jobs per rule of the target ``all``."""
    runs = len(study.datasets) * len(study.seeds)
    jobs = {
        "backbone": 1,
        "student": int(study.has_student),
        "tokenise": 2 * len(study.datasets),
        "train": runs * len(study.trainings),
        "export": runs * len(_exported(study)),
        "measure": runs * len(study.measured),
        "pool": len(study.datasets) * len(study.measured),
    }
    analyses = ["table1", "table2", "figure2", "figure3", "heatmap", "pareto", "study"]
    analyses += ["cumulativeness", "figure4"] if study.estimated_sets else []
    analyses += ["costeff", "joint"] if study.compared_jointly else []
    return {rule: count for rule, count in (jobs | dict.fromkeys(analyses, 1)).items() if count}


def _exported(study: Config) -> list[Pipeline]:
    """The pipelines that are exported: what is measured, and O, to measure against."""
    return list(dict.fromkeys([Pipeline("O"), *study.measured]))


def _known(source: str, key: str) -> Architecture:
    found = architecture(source)
    if found is None:
        raise PipeOpsError(f"{key}: the architecture of '{source}' is not known here; give its folder")
    return found


def _plain(backbone: Architecture, *, num_labels: int) -> ModelShape:
    """The backbone with one classifier, after its last layer."""
    return ModelShape(
        family="bert" if backbone.family == "bert" else "roberta",
        vocab_size=backbone.vocab_size,
        hidden_size=backbone.hidden_size,
        head_size=backbone.hidden_size // backbone.heads,
        heads_per_layer=(backbone.heads,) * backbone.layers,
        ffn_per_layer=(backbone.ffn_size,) * backbone.layers,
        exit_layers=(backbone.layers,),
        num_labels=num_labels,
        max_position_embeddings=backbone.position_rows,
        type_vocab_size=backbone.segment_rows,
        # What follows has no part in any size.
        pad_token_id=0,
        sep_token_id=0,
        layer_norm_eps=1e-5,
        hidden_act="gelu",
    )


def _checkpoint_bytes(shape: ModelShape) -> int:
    return 4 * shape.parameters + TOKENIZER_BYTES * shape.vocab_size


def _graph_bytes(shape: ModelShape) -> int:
    return round(GRAPH_FILES * (1 + INT8_SHARE) * 4 * shape.parameters)
