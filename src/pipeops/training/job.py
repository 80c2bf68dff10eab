"""Training one node of the DAG: an operator applied to its parent."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.files import disk_full_in_one_line
from pipeops.hardware import device_name, has_compiler, prepare_device
from pipeops.integrity import digest, is_whole, sealed_folder
from pipeops.locks import alone
from pipeops.models.architectures import known_architecture
from pipeops.models.backbones import WEIGHTS, load_tokenizer, quiet_transformers
from pipeops.models.shape import ModelShape, read_config
from pipeops.operators.base import Context, Stage
from pipeops.operators.registry import OPERATORS, training_function
from pipeops.pipeline import InvalidPipeline, Pipeline
from pipeops.progress import say
from pipeops.provenance import json_text, provenance
from pipeops.settings import SAVING, Device, ExitTraining, Section, TrainingSettings
from pipeops.training.batches import batches
from pipeops.training.checkpoints import is_first_process, load_model, process_count
from pipeops.training.stages import StageRun

RESUME = (
    "free some, or set keep_checkpoints: false, and run again: it resumes at the last complete checkpoint"
)
"""What to do about a full disk."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    operator: str
    """Letter of the operator that is applied."""
    parent: Path | None
    """Checkpoint that it is applied to; None for O."""
    backbone: Path
    """Folder of the pretrained encoder (and of the tokenizer)."""
    data: Path
    """Tokenised training examples."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Extra inputs that the operator declares, by name: folders of pretrained models, or tokenised splits."""
    seed: int
    settings: TrainingSettings
    own_settings: Section
    """The operator's own section of the configuration."""
    exits: ExitTraining = field(default_factory=ExitTraining)
    """What classifiers see, and how the losses of several are joined; pooling must be the parent's."""
    device: Device = "auto"
    """``gpu`` refuses to train without one."""
    compiled: bool = False
    """Whether the model is compiled; it changes the speed, and results by rounding only."""


def train(
    job: Job, output: Path, *, state_root: Path, start_several: Callable[[], None] | None = None
) -> None:
    """Train and write the checkpoint (``config.json``, ``model.safetensors``, tokenizer, ``training.json``).

    A run that was interrupted continues at the last saved step of the stage that it was in.

    Args:
        job: what to train.
        output: folder of the checkpoint.
        state_root: where the state to resume from is kept, in a folder named by a hash of everything that
            the result depends on; removed on success. It must not lie within ``output``.
        start_several: starts the processes that train this model together, each of which calls this function,
            and waits for them; None: this process trains.

    Raises:
        PipeOpsError: an input cannot be read, or the operator cannot be applied.
    """
    make_stages = training_function(job.operator)
    _refuse_misfits(job)
    if state_root.resolve().is_relative_to(output.resolve()):
        raise PipeOpsError(f"--state: {state_root} is within --output, {output}; name another folder")
    fingerprint = _fingerprint(job)
    lock = state_root / f"{fingerprint}.lock"
    one_of_several = process_count() > 1  # who started them has the lock
    with nullcontext(False) if one_of_several else alone(lock, "trains this model") as waited:
        if waited and _made(output) == fingerprint:
            say(f"{output}: it is trained")
        elif start_several is not None:
            start_several()
        else:
            _train(job, make_stages, output, state_root / fingerprint)


def _train(job: Job, make_stages: Callable[..., Sequence[Stage]], output: Path, state: Path) -> None:
    quiet_transformers()
    device = prepare_device(job.device, threads=job.settings.threads)
    training = load_tokenised(job.data)
    encoder = known_architecture(str(job.backbone), "--backbone")
    training.refuse_other_vocabulary(
        job.data, vocabulary=encoder.vocab_size, longest=encoder.max_length, model=job.backbone
    )
    if job.parent is not None:
        known = ModelShape.from_checkpoint(job.parent)
        training.refuse_other_vocabulary(
            job.data, vocabulary=known.vocab_size, longest=known.max_length, model=job.parent
        )
    tokenizer = load_tokenizer(job.backbone)  # it is written last, and should be known to be there
    run = StageRun(
        split=training,
        settings=job.settings,
        seed=job.seed,
        compiled=job.compiled,
        device=device,
        state=state,
    )

    def importance_batches(examples: int | None, *, split: str = "") -> Iterator[Mapping[str, Tensor]]:
        drawn_from = load_tokenised(job.inputs[split]) if split in job.inputs else training
        return batches(drawn_from, examples=examples, batch_size=job.settings.batch_size, device=device)

    context = Context(
        parent=load_model(job.parent).to(device) if job.parent else None,
        backbone=job.backbone,
        labels=training.labels,
        sep_token_id=training.sep_token_id,
        settings=job.own_settings,
        exits=job.exits,
        inputs=job.inputs,
        batches=importance_batches,
    )
    stages = make_stages(context)
    for number, stage in enumerate(stages, start=1):
        if run.is_finished(stage):
            continue
        if len(stages) > 1:
            say(f"stage {number} of {len(stages)}: {stage.name}")
        with disk_full_in_one_line(run.state, advice=RESUME):
            run.train(stage)
    if is_first_process():
        log = [row for stage in stages for row in run.log(stage.name)]
        with disk_full_in_one_line(output, advice=RESUME):
            _save(run.finished(stages[-1].name), tokenizer, log, job, output)
        shutil.rmtree(run.state, ignore_errors=True)


def _refuse_misfits(job: Job) -> None:
    """Refuse a job that makes no pipeline, where it can be seen before anything is loaded."""
    if (job.parent is None) != (OPERATORS[job.operator].kind == "original"):
        problem = "has no parent" if job.parent else "needs the parent that it is applied to"
        raise PipeOpsError(f"operator {job.operator} {problem}: see --parent")
    known = OPERATORS[job.operator].input_names
    for name in job.inputs:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise PipeOpsError(f"--input: operator {job.operator} has no input '{name}'; {takes}")
    _pipeline(job)
    if job.parent is not None:
        _refuse_other_exits(job.exits, job.parent)
    if job.compiled and not has_compiler():
        raise PipeOpsError("training.compiled: no C++ compiler is found; install g++, or set it to false")


def _refuse_other_exits(exits: ExitTraining, parent: Path) -> None:
    """Refuse a parent whose classifiers saw something else than those that are to be trained."""
    shape = ModelShape.from_checkpoint(parent)
    if shape.pooling != exits.pooling:
        raise PipeOpsError(
            f"model.pooling: {exits.pooling}, but {parent} was trained with {shape.pooling}; "
            f"set it to {shape.pooling}, or train the parent anew"
        )
    config = read_config(parent)
    if shape.has_exits and (standardised := config.get("exits_standardised", False)) != exits.standardise:
        was = "was" if standardised else "was not"
        raise PipeOpsError(
            f"exits.standardise: {str(exits.standardise).lower()}, but {parent} {was} trained so; "
            f"set it to {str(standardised).lower()}, or train the parent anew"
        )


def _pipeline(job: Job) -> Pipeline:
    """The pipeline that this training makes.

    Raises:
        PipeOpsError: it is none: a rule forbids the operator after those of the parent.
    """
    if job.parent is None:
        return Pipeline("O")
    before = ModelShape.pipeline_of(job.parent)
    try:
        return Pipeline(before.replace("O", "") + job.operator)
    except InvalidPipeline as error:
        raise PipeOpsError(f"--parent {job.parent}: {error}; name another one") from None


def _fingerprint(job: Job) -> str:
    """Hash of everything that the result depends on."""
    described: dict[str, Any] = {
        "operator": job.operator,
        "revision": OPERATORS[job.operator].revision,
        "seed": job.seed,
        **_settings(job),
        "data": digest(job.data),
        "inputs": {
            name: digest(path / WEIGHTS if path.is_dir() else path) for name, path in job.inputs.items()
        },
    }
    for name in ("parent", "backbone"):
        folder = getattr(job, name)
        described[name] = digest(folder / WEIGHTS) if folder else None
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]


def _save(
    finished: Path,
    tokenizer: PreTrainedTokenizerBase,
    log: list[dict[str, Any]],
    job: Job,
    output: Path,
) -> None:
    """Write the checkpoint of the last stage, the tokenizer and the record."""
    with sealed_folder(output, last=WEIGHTS) as folder:
        tokenizer.save_pretrained(folder)
        shutil.copy(finished / WEIGHTS, folder / WEIGHTS)
        config = read_config(finished)
        about = {"pipeline": str(_pipeline(job)), "seed": job.seed}
        (folder / "config.json").write_text(json_text(config | about))
        record = provenance(
            operator=job.operator,
            seed=job.seed,
            **_settings(job),
            threads=torch.get_num_threads(),
            device=device_name(),
        )
        record |= {"fingerprint": _fingerprint(job), "log": log}
        (folder / "training.json").write_text(json_text(record))


def _made(output: Path) -> str | None:
    """The fingerprint of the training that made a whole checkpoint; None without one."""
    if not is_whole(output):
        return None
    return json.loads((output / "training.json").read_text()).get("fingerprint")


def _settings(job: Job) -> dict[str, Any]:
    """The settings of the training and the operator's own section, as ``--settings`` has them."""
    section = OPERATORS[job.operator].section
    own = {section: job.own_settings.model_dump()} if section else {}
    training = job.settings.model_dump(exclude=SAVING)
    return {"training": training, "exits": job.exits.model_dump(), **own}
