"""The sections of the configuration: their keys, defaults and ranges. What spans sections is in ``config``.

Nothing heavy is imported: the Snakefile reads this.
"""

import codecs
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeops.errors import PipeOpsError
from pipeops.files import expanded
from pipeops.text import as_given, shortened, unknown_key

TINY = "tiny"
"""Name of the built-in backbone, pretrained within the workflow on generated text."""
ALTERNATE = "alternate"
"""Student made of every second layer of the pretrained backbone."""


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is a truth value, {str(value).lower()}; write a number")
    return value


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!r}: line breaks and control characters are not allowed; write another")
    return text


def _without_braces(path: str) -> str:
    if "{" in path or "}" in path:
        raise ValueError(f"'{shortened(path, 100)}': braces are not allowed in a path; rename it")
    return path


# The one home of bounds: the configuration and the command line take theirs from these types. No honest study
# meets the upper ones. What they keep out hangs, ends the process or fills the memory.
NUMBER = BeforeValidator(_no_truth_value)  # last, so that the schema has bounds as JSON Schema writes them
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), NUMBER]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), NUMBER]
NotNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), NUMBER]
PositiveInt = Annotated[int, Field(ge=1, le=10**6), NUMBER]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Parallel = Annotated[int, Field(ge=1, le=256), NUMBER]
"""Threads, processes, GPUs, or jobs at a time."""
Examples = Annotated[int, Field(ge=1, le=10**9), NUMBER]
TrainExamples = Annotated[int, Field(ge=2, le=10**9), NUMBER]
BatchSize = Annotated[int, Field(ge=1, le=2**16), NUMBER]
MaxLength = Annotated[int, Field(ge=8, le=2**16), NUMBER]
"""Longest input of a model, in tokens."""
Length = Annotated[int, Field(ge=1, le=2**16), NUMBER]
"""Tokens of an input."""
Epochs = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False), NUMBER]
LearningRate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False), NUMBER]
Rounds = Annotated[int, Field(ge=5, le=10_000), NUMBER]
Percentage = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), NUMBER]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NUMBER]
Rate = Annotated[float, Field(ge=1e-6, le=1e12, allow_inf_nan=False), NUMBER]
OneLine = Annotated[str, Field(min_length=1), AfterValidator(_on_one_line)]
"""A name of a file, a folder or a model."""
FilePath = Annotated[OneLine, AfterValidator(_without_braces)]
"""A path of files that Snakemake knows, where braces would stand for wildcards."""
Device = Literal["auto", "cpu", "gpu"]
Precision = Literal["auto", "fp32", "bf16"]
Confidence = Literal["max_probability", "entropy", "patience"]
Pooling = Literal["first", "mean"]
ExitLoss = Literal["sum", "mean"]
Split = Literal["train", "validation"]
Metric = Literal["accuracy", "macro_f1", "mcc"]
SAVING = {"checkpoint_every"}
"""Keys of a training's settings that decide how often it saves, and not what it makes."""
WAITING = {"wait"}
"""Keys of ``prices`` that decide how long a quiet machine is waited for, and no price."""


def limits(kind: Any) -> dict[str, Any]:
    """Least and largest value of one of the types above, as ``typer.Option`` takes them."""
    found: dict[str, Any] = {}
    for bound in (bound for part in kind.__metadata__ for bound in getattr(part, "metadata", ())):
        if isinstance(bound, Ge):
            found["min"] = bound.ge
        if isinstance(bound, Le):
            found["max"] = bound.le
    return found


class UnusableSetting(PipeOpsError, ValueError):
    """A value that is valid by itself but not for the model it is applied to."""


class Section(BaseModel):
    """A section of the configuration. Unknown keys are errors, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _null_as_text(cls, values: Any) -> Any:
        """Snakemake's ``--config`` reads ``null`` within a section as a text."""
        if not isinstance(values, dict):
            return values
        return {key: None if value == "null" else value for key, value in values.items()}


class Pathvars(Section):
    """Snakemake's pathvars: where results and logs go, so that studies do not mix."""

    results: OneLine = "results"
    """Folder of the results."""
    logs: OneLine = "logs"
    """Folder of the jobs' logs, times and memory."""

    @field_validator("results", "logs")
    @classmethod
    def _plain(cls, folder: str) -> str:
        """Snakemake takes these texts as they are, but for its wildcards and its own pathvars."""
        if strange := next((mark for mark in "{}<>" if mark in folder), None):
            raise ValueError(f"'{folder}': '{strange}' is not allowed; name another folder")
        if folder.startswith(("~", "-")):
            raise ValueError(f"'{folder}': begins with {folder[0]}, which means something else; name another")
        if folder != (plain := os.path.normpath(folder)):
            raise ValueError(f"'{folder}': targets would not be found under it; write {plain}")
        return folder

    @model_validator(mode="after")
    def _apart(self) -> Self:
        # Logs would be taken for results: both have models/, onnx/, prices/ and so on.
        if os.path.realpath(self.results) == os.path.realpath(self.logs):
            raise ValueError(f"results and logs are one folder, '{self.results}'; name two")
        return self


class TaskSection(Section):
    """A classification task of one's own: where its rows are, and which of their columns are used."""

    files: dict[Split, Annotated[list[FilePath], Field(min_length=1)]] = {}
    """CSV, TSV, JSONL or Parquet files of `train` and of `validation`: a path, or a list of them."""
    hub: OneLine | None = None
    """Instead of files: hub id of a data set, or a folder of the same layout."""
    subset: str | None = None
    """Of a hub's data set that has several."""
    splits: dict[Split, str] = {}
    """What a hub's data set calls its splits, where that is not train and validation."""
    text: Annotated[list[str], Field(min_length=1, max_length=2)]
    """Column of the texts, or two columns for pairs of texts."""
    label: str
    """Column of the labels: class names, or integers."""
    held_out: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), NUMBER] | None = None
    """Fraction of the training rows that is held out for validation, in the same shares of the classes; null:
    the validation rows are given."""
    group: str | None = None
    """Column of what is held out whole, such as an author; null: rows of the same texts."""
    seed: Seed = 0
    """Decides which rows are held out."""
    encoding: str = "utf-8"
    """Of CSV and TSV files."""
    drop_empty: bool = False
    """Whether rows without a text and rows without a label are left out. Otherwise an empty text counts as a
    text, and a missing label is an error."""
    metric: Metric = "accuracy"
    """What says how good answers are, in curves, tables and recommendations: accuracy, macro-F1 (the mean of
    the classes' F1) or Matthews' correlation. Changing it runs no training, export, price or evaluation."""

    @field_validator("files", mode="before")
    @classmethod
    def _paths_in_lists(cls, files: Any) -> Any:
        if not isinstance(files, dict):
            return files
        return {split: [paths] if isinstance(paths, str) else paths for split, paths in files.items()}

    @field_validator("text", mode="before")
    @classmethod
    def _columns_in_a_list(cls, text: Any) -> Any:
        return [text] if isinstance(text, str) else text

    @field_validator("hub")
    @classmethod
    def _hub_exists(cls, source: str | None) -> str | None:
        return source and existing_if_path(source)

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError(f"'{encoding}' is no encoding; write utf-8 or latin-1, for example") from None
        return encoding

    @model_validator(mode="after")
    def _rows_come_from_one_place(self) -> Self:
        if bool(self.hub) == bool(self.files):
            raise ValueError("name either files or a hub's data set; files: {train: ..., validation: ...}")
        if not self.hub and (self.subset or self.splits):
            raise ValueError("subset and splits are a hub's; leave them out, or name hub instead of files")
        if self.hub and self.encoding != "utf-8":
            raise ValueError("encoding is for files; leave it out")
        if self.files and "train" not in self.files:
            raise ValueError("files: has no train; name its file")
        if self.held_out is None and self.group is not None:
            raise ValueError("group is for held_out; set held_out, such as 0.2, or leave group out")
        if self.held_out is not None and ("validation" in self.files or "validation" in self.splits):
            raise ValueError("held_out: validation rows are given too; leave one of them out")
        if self.files and self.held_out is None and "validation" not in self.files:
            raise ValueError("files: has no validation; name its file, or set held_out, such as 0.2")
        return self

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        for number, column in enumerate(self.columns):
            if column in self.columns[:number]:
                raise ValueError(
                    f"column '{column}' is named twice; text, label and group are different columns"
                )
        return self

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        return [*self.text, self.label, *([self.group] if self.group else [])]

    @property
    def given(self) -> list[Split]:
        """The splits whose rows are given."""
        return ["train", "validation"] if self.held_out is None else ["train"]


class ModelSection(Section):
    """Which encoder is fine-tuned."""

    backbone: OneLine = TINY
    """Pretrained encoder of a supported family (docs/own-data.md): a hub id, a folder, or `tiny` (built in,
    pretrained on generated text, or on the training texts of one's own tasks)."""
    student: OneLine = ALTERNATE
    """Pretrained encoder that D starts from: a hub id or a folder with the backbone's tokenizer and hidden
    size, or `alternate` (layers 2, 4, 6 ... of the pretrained backbone)."""
    finetuned: bool = False
    """Whether the backbone is a classifier already. Then it is O as it is, and nothing trains it; D starts
    from its encoder. Its classes must be those of the data, and `pooling` must be first."""
    pooling: Pooling = "mean"
    """What a classifier sees of its layer's output: the first token's state, or the mean over the tokens that
    are not padding. The paper: first."""
    max_length: MaxLength = 40
    """Longest input, in tokens; inputs are padded to it unless L is applied."""

    @property
    def has_student(self) -> bool:
        """Whether D starts from a pretrained model of its own."""
        return self.student != ALTERNATE

    @model_validator(mode="after")
    def _can_be_finetuned(self) -> Self:
        if self.finetuned and self.backbone == TINY:
            raise ValueError(
                "finetuned: 'tiny' is no classifier yet; name one as backbone, or set it to false"
            )
        if self.finetuned and self.pooling != "first":
            raise ValueError(
                f"finetuned: a classifier of transformers sees the first token, and pooling is "
                f"{self.pooling}; set pooling: first"
            )
        return self

    @field_validator("backbone", "student")
    @classmethod
    def _exists(cls, source: str) -> str:
        return source if source in (TINY, ALTERNATE) else existing_if_path(source)


class DataSection(Section):
    """How much of each dataset is used."""

    train_examples: TrainExamples | None = 4000
    """Training examples, drawn once and the same for all seeds; null: all."""
    validation_examples: Examples | None = 5000
    """Validation examples, on which everything is measured; null: all."""


class PretrainingSection(Section):
    """Masked language modelling of the `tiny` backbone on generated text, or on one's own."""

    examples: Examples = 48000
    """Generated sentence pairs; or one's own training texts, taken again where they are fewer."""
    epochs: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), NUMBER] = 1
    """Passes over them; 0 starts fine-tuning from random weights."""
    batch_size: BatchSize = 32
    """Pairs per step."""
    learning_rate: LearningRate = 1e-3
    """Peak learning rate."""
    threads: Parallel = 2
    """CPU threads."""
    seed: Seed = 0
    """Its own seed: all runs start from one pretrained backbone, as they would from a downloaded one."""


class TrainingSettings(Section):
    """Hyper-parameters of one training."""

    epochs: Epochs = 4
    """Passes over the training examples."""
    batch_size: BatchSize = 16
    """Examples per step."""
    learning_rate: LearningRate = 5e-4
    """Peak learning rate."""
    warmup: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), NUMBER] = 0.1
    """Fraction of the steps over which the learning rate rises; it then falls linearly to 0."""
    weight_decay: NotNegative = 0.01
    """AdamW's weight decay."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    length_grouped: bool = True
    """Whether batches hold examples of similar length (less padding, faster)."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass; weights and optimiser stay fp32. auto: bf16 on a GPU that
    has it and on a CPU that is faster with it, else fp32."""
    threads: Parallel = 1
    """CPU threads of a training without a GPU."""
    checkpoint_every: Fraction = 0.5
    """Fraction of the training between two checkpoints to resume from."""


class TrainingSection(TrainingSettings):
    """Hyper-parameters of every training, and what differs for single operators."""

    operators: dict[str, dict[str, Any]] = {"O": {"epochs": 8}, "C": {"epochs": 1}}
    """Per letter of an operator that is trained: other values of keys above."""
    pipelines: dict[str, dict[str, Any]] = {}
    """Per trained pipeline, such as ED: other values of keys above for the training that makes it, over those
    of its last operator."""
    exit_loss: ExitLoss = "sum"
    """How E, and D and P of a model with exits, join the losses of the exits: their sum, or their mean (then
    distillation weighs answers, embeddings and hidden states 1:1:1, whatever the number of exits)."""
    device: Device = "auto"
    """Where trainings run. auto: on a GPU if there is one; gpu: only on a GPU."""
    gpu_slots: Parallel = 1
    """Trainings that share one GPU of this machine."""
    gpus_per_training: Parallel = 1
    """GPUs used by one training (torchrun); on a CPU, processes. They divide each step's batch."""
    compiled: bool = False
    """Whether models are compiled (torch.compile, on a GPU with CUDA graphs) and batches padded to multiples
    of 32 tokens. It takes a minute or more before the first steps, so it is for long trainings."""

    @model_validator(mode="after")
    def _check_operators(self) -> Self:
        known = list(TrainingSettings.model_fields)
        for group in ("operators", "pipelines"):
            for name, changes in getattr(self, group).items():
                for key in changes:
                    if key not in known:
                        raise ValueError(f"{group}.{name}: {unknown_key(key, key, known)}")
                try:
                    self.of(name[-1:], name)
                except ValidationError as error:
                    detail = error.errors()[0]
                    raise ValueError(finding(detail, TrainingSettings, within=f"{group}.{name}")) from None
        return self

    def of(self, operator: str, pipeline: str = "") -> TrainingSettings:
        """The settings of the trainings of one operator, or of the one that makes this pipeline."""
        shared = self.model_dump(include=set(TrainingSettings.model_fields))
        changes = self.operators.get(operator, {}) | self.pipelines.get(pipeline, {})
        return TrainingSettings.model_validate(shared | changes)


def kept_count(fraction: float, total: int, *, what: str) -> int:
    """How many of ``total`` units ``fraction`` keeps.

    Args:
        fraction: in (0, 1].
        total: units that there are.
        what: key of the configuration, to be named where none is left.

    Raises:
        UnusableSetting: none would be left.
    """
    count = round(fraction * total)
    if count < 1:
        raise UnusableSetting(
            f"{what}: {fraction} of {total} rounds to none; raise it above {0.5 / total:.3g}"
        )
    return count


class ExitsSection(Section):
    """Models with exits: what new exits see while they are trained, and how an input's exit is chosen."""

    standardise: bool = False
    """Whether the inputs of new exits are standardised (each unit to mean 0 and variance 1) while they are
    trained. The saved model has the same graph and cost either way."""

    confidence: Confidence = "max_probability"
    """How sure an exit is. Its largest class probability; or exp(-entropy) of its probabilities, between
    1 / classes and 1 too (with two classes inputs leave in the same order, at other thresholds); or patience:
    how many exits in a row, this one included, answer the same class."""


class ExitTraining(Section):
    """What a training does with classifiers, from several sections of the configuration."""

    pooling: Pooling = "first"
    """As in `model`."""
    standardise: bool = False
    """As in `exits`."""
    exit_loss: ExitLoss = "sum"
    """As in `training`."""


class MeasuringSection(Section):
    """Where inputs leave. Changing it runs no training, export, price or evaluation."""

    thresholds: Annotated[list[NotNegative], Field(min_length=1, max_length=1000)] = [
        0, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9,
        0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.01,
    ]  # fmt: skip
    """Confidences at which an exit is taken; 0: always the first, above 1: never an early one. Ascending."""
    patiences: Annotated[list[PositiveInt], Field(min_length=1, max_length=1000)] | None = None
    """Used instead of thresholds where `exits.confidence` is patience; null: each from 1 to the number of
    exits. Ascending."""
    allow_other_cpu: bool = False
    """Whether prices may come from a CPU of another model than this machine's, or with other int8
    instructions."""

    @field_validator("thresholds", "patiences")
    @classmethod
    def _ascending(cls, values: list[float] | None) -> list[float] | None:
        if values is not None and values != sorted(set(values)):
            raise ValueError("must be ascending, each value once")
        return values

    @field_validator("thresholds")
    @classmethod
    def _ends_at_full_depth(cls, values: list[float]) -> list[float]:
        if values[-1] <= 1:
            raise ValueError("must end above 1, where no early exit is taken; add 1.01")
        return values


class CommutativitySection(Section):
    """When the order of operators counts as not mattering."""

    margin: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False), NUMBER] = 2.0
    """Percentage points of the metric. Two orderings commute where their difference is surely smaller."""


class PricesSection(Section):
    """How it is measured what leaving at each exit costs."""

    threads: Parallel = 1
    """CPU threads of inference."""
    rounds: Rounds = 12
    """How often each exit's time is measured at each length, next to O's each time; medians are reported."""
    most_rounds: Rounds = 240
    """How often at most: rounds go on until `precision` is reached."""
    precision: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), NUMBER] = 0.01
    """Relative standard error that every price must reach."""
    lengths: PositiveInt = 5
    """Input lengths at which L's times are measured: quantiles of the validation examples' lengths."""
    unsteady: Positive = 0.15
    """A round in which O's time is further than this part off its median is repeated."""
    others: NotNegative = 0.5
    """CPU cores that other processes may use meanwhile."""
    wait: Annotated[float, Field(ge=0, le=7 * 24 * 3600, allow_inf_nan=False), NUMBER] = 120
    """Seconds that may be lost in all to a busy machine, by waiting and by rounds that do not count; then the
    price is refused."""
    seed: Seed = 0
    """Seed of the random weights and inputs."""

    @model_validator(mode="after")
    def _no_fewer_at_most(self) -> Self:
        if self.most_rounds < self.rounds:
            raise ValueError(f"most_rounds: {self.most_rounds} is less than rounds, {self.rounds}; raise it")
        return self


class CheckSection(Section):
    """How a replayed curve is compared with really running the model."""

    thresholds: PositiveInt = 3
    """How many thresholds are really run."""
    examples: PositiveInt = 20
    """How many validation examples each of them is run on."""
    tolerance: Positive = 0.1
    """How far the mean time of those runs may be off what the prices say, as a part of it."""


_MOST_SAID = 1000
"""Characters of what is said of a value."""


def finding(detail: Mapping[str, Any], section: type[BaseModel], *, within: str = "") -> str:
    """One readable line for one of pydantic's findings.

    Args:
        detail: as ``ValidationError.errors`` lists it.
        section: the model that was validated.
        within: key of that model, where it is a section of a larger one.
    """
    location = [str(part) for part in detail["loc"]]
    *parents, last = location or ["(whole)"]
    key = shortened(".".join(filter(None, [within, *location])) or last, 100)
    if detail["type"] == "extra_forbidden":
        return unknown_key(key, last, _known_keys(section, parents))
    message = shortened(detail["msg"].removeprefix("Value error, "), _MOST_SAID)
    if detail["type"] == "too_short":
        return f"{key}: is empty; list at least one"
    given = f" (got {as_given(detail['input'])})"
    if detail["type"] in ("model_type", "model_attributes_type"):
        return f"{key}: is a section of keys and values{given}; write its keys below it"
    if detail["type"] == "value_error" and not location:
        return f"{within}: {message}" if within else message
    if detail["type"] in ("missing", "value_error"):
        given = ""
    elif detail["type"] == "int_type" and isinstance(detail["input"], str):
        given += "; write it without quotes"
    return f"{key}: {message[0].lower() + message[1:]}{given}"


def _known_keys(section: Any, parents: Sequence[str]) -> list[str]:
    """The keys of the section that ``parents`` leads to."""
    for part in parents:
        if get_origin(section) is dict:
            section = get_args(section)[1]
        else:
            section = section.model_fields[part].annotation
    return list(section.model_fields)


def existing_if_path(source: str) -> str:
    """Pass a hub id (``name`` or ``owner/name``) or an existing folder; anything else names no source."""
    _without_braces(source)
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    if not looks_like_path:
        return source
    folder = expanded(source)
    if not folder.is_dir():
        raise ValueError(f"'{source}' is not a folder; give an existing one or a hub id such as owner/name")
    return str(folder)
