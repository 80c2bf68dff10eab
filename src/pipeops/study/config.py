"""The configuration: one typed model, what must fit together in it, and its messages.

``config.yaml`` and ``workflow/schemas/config.schema.json`` are written from these classes, and a test fails
when they drift apart. Nothing heavy is imported: the Snakefile reads this.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, ValidationInfo, create_model, field_validator, model_validator

from pipeops.data.sources import own_task
from pipeops.data.tasks import REGRESSION_TASKS, SPLITS, TASKS, Task
from pipeops.errors import PipeOpsError, of_system
from pipeops.files import expanded
from pipeops.models.architectures import TINY_OF_OWN_TEXTS, architecture, other_family
from pipeops.operators.declaration import NoSettings, Setup
from pipeops.operators.registry import OPERATORS, TRAINABLE, shape_after
from pipeops.pipeline import Pipeline, closure, orderings, parse_operator_set, parts_of
from pipeops.reading import reading
from pipeops.settings import (
    ALTERNATE,
    TINY,
    CheckSection,
    CommutativitySection,
    DataSection,
    ExitsSection,
    ExitTraining,
    FilePath,
    MeasuringSection,
    Metric,
    ModelSection,
    OneLine,
    Pathvars,
    PretrainingSection,
    PricesSection,
    Section,
    Seed,
    TaskSection,
    TrainingSection,
    TrainingSettings,
    existing_if_path,
    finding,
)
from pipeops.text import nearest, shortened

HERE = "here"
"""Instead of a folder of prices: they are measured on this CPU."""
JOINT = ("O", "C", "DEP", "DPE", "EDP")
"""What `results/costeff.csv` compares unless told otherwise: COST-EFF's question, with O to compare to."""
_MOST_NAMED = 20
"""Mistakes of a configuration that are named."""
_MOST_KEYS = 1000
"""Keys of a mapping."""
_LONGEST = 2**18
"""Characters of a configuration file."""


class BaseConfig(Section):
    """A study: datasets, seeds, operator sets and how everything is trained and measured."""

    pathvars: Pathvars = Pathvars()
    tasks: dict[str, TaskSection] = {}
    """Tasks of one's own, by name; see docs/own-data.md."""
    datasets: Annotated[list[str], Field(min_length=1)] = ["generated-sentiment"]
    """GLUE tasks (mrpc, sst2, qnli, qqp), generated ones (generated-sentiment, generated-paraphrase), or
    names of `tasks`."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = [1, 2, 3, 4, 5, 6]
    """One run of everything per seed."""
    operator_sets: Annotated[list[str], Field(min_length=1)] = ["DE", "PE", "DPE"]
    """Sets of operators whose orderings Table 1 compares."""
    pipelines: list[str] = ["O", "D", "P", "E", "DP", "C"]
    """Trained pipelines measured beside those orderings: rows of Table 2, inputs of estimates, and C."""
    table2: Annotated[list[str], Field(min_length=1)] = ["O", "D", "P", "DP"]
    """Pipelines that get a row in Table 2: what Q and L save at their end."""
    joint: list[str] | None = None
    """Pipelines that `results/costeff.csv` compares: C, trained jointly, with operators one after the other;
    null: those of O, C, DEP, DPE and EDP that are measured, if C is."""
    cumulativeness: list[str] | None = None
    """Operator sets whose tradeoff is estimated from O, D, P and E; null: those of `operator_sets` that have
    E."""
    keep_checkpoints: bool = True
    """Whether trained models and exported graphs are kept; if not, each is deleted once no job needs it."""
    glue: OneLine = "nyu-mll/glue"
    """Where GLUE is: a hub id, or a folder of the same layout."""
    answers: FilePath | None = None
    """Folder of a study's published prices and answers, from which everything is made without training; null:
    they are measured."""
    prices_from: FilePath | None = None
    """With `answers`: `here` measures prices on this CPU, still without training; a folder has those of
    another CPU; null: they are the published ones."""
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    pretraining: PretrainingSection = PretrainingSection()
    training: TrainingSection = TrainingSection()
    exits: ExitsSection = ExitsSection()
    measuring: MeasuringSection = MeasuringSection()
    prices: PricesSection = PricesSection()
    check: CheckSection = CheckSection()
    commutativity: CommutativitySection = CommutativitySection()

    @field_validator("tasks")
    @classmethod
    def _names_of_their_own(cls, tasks: dict[str, TaskSection]) -> dict[str, TaskSection]:
        for name in tasks:
            if name in (*TASKS, *REGRESSION_TASKS):
                raise ValueError(f"'{name}' is the name of a built-in task; choose another")
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
                raise ValueError(f"'{name}' names files too; use letters, digits, '.', '_' and '-' only")
        return tasks

    @field_validator("datasets")
    @classmethod
    def _known_datasets(cls, names: list[str], info: ValidationInfo) -> list[str]:
        known = [*TASKS, *info.data.get("tasks", names)]  # what is wrong with tasks is said by itself
        for name in names:
            if name in REGRESSION_TASKS:
                raise ValueError(
                    f"'{name}' is a regression task; PipeOps studies classification: {', '.join(known)}"
                )
            if name not in known:
                raise ValueError(
                    f"unknown dataset '{name}'{nearest(name, known)}; known are {', '.join(known)}; "
                    "data of your own are described in tasks"
                )
        return _each_once(names)

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: list[int]) -> list[int]:
        return _each_once(seeds)

    @field_validator("operator_sets")
    @classmethod
    def _valid_sets(cls, sets: list[str]) -> list[str]:
        canonical = [parse_operator_set(text) for text in sets]
        for operators in canonical:
            if untrained := [letter for letter in operators if letter not in TRAINABLE]:
                raise ValueError(
                    f"operator set '{operators}': {', '.join(untrained)} changes inference only "
                    "and has no order to study; leave it out"
                )
        return _each_once(canonical)

    @field_validator("pipelines", "table2", "joint")
    @classmethod
    def _trained_pipelines(cls, texts: list[str] | None) -> list[str] | None:
        for pipeline in map(Pipeline.parse, texts or []):
            if pipeline.inference:
                raise ValueError(
                    f"'{pipeline}': every pipeline is measured with and without L and Q; "
                    f"write '{pipeline.trained}'"
                )
            if untrainable := set(pipeline.trained) - set(TRAINABLE):
                raise ValueError(f"'{pipeline}': {', '.join(untrainable)} cannot be trained; leave it out")
        return texts and _each_once(texts)

    @field_validator("joint")
    @classmethod
    def _compares_c(cls, texts: list[str] | None) -> list[str] | None:
        if texts is not None and "C" not in texts:
            raise ValueError("compares C with others, and does not name C; add it, or set it to null")
        return texts

    @field_validator("cumulativeness")
    @classmethod
    def _estimable_sets(cls, sets: list[str] | None) -> list[str] | None:
        if sets is None:
            return None
        canonical = [parse_operator_set(text) for text in sets]
        for operators in canonical:
            if not _estimable(operators):
                raise ValueError(
                    f"'{operators}' cannot be estimated; the equations take E with D, P or both: DE, PE, DPE"
                )
        return _each_once(canonical)

    @model_validator(mode="after")
    def _everything_used_is_measured(self) -> Self:
        measured = [str(pipeline) for pipeline in self.measured]
        for key, wanted in (("table2", self.table2), ("joint", self.joint or [])):
            for pipeline in wanted:
                if pipeline not in measured:
                    raise ValueError(
                        f"{key}: '{pipeline}' is not measured; add it: "
                        f"pipelines: [{', '.join([*self.pipelines, pipeline])}]"
                    )
        for operators in self.estimated_sets:
            parts = parts_of(operators)
            if missing := [part for part in parts if part not in measured]:
                raise ValueError(
                    f"cumulativeness: '{operators}' is estimated from {', '.join(parts)}, of which "
                    f"{', '.join(missing)} is not measured; add it: "
                    f"pipelines: [{', '.join([*self.pipelines, *missing])}]"
                )
            if not any(str(order) in measured for order in orderings(operators)):
                raise ValueError(
                    f"cumulativeness: no ordering of '{operators}' is measured; add it: "
                    f"operator_sets: [{', '.join([*self.operator_sets, operators])}]"
                )
        return self

    @model_validator(mode="after")
    def _leaves_at_once(self) -> Self:
        """Equation 4 has t_E, the least time on E's curve."""
        distilled = [operators for operators in self.estimated_sets if "D" in operators]
        by_patience = self.exits.confidence == "patience"
        given = self.measuring.patiences or [1] if by_patience else self.measuring.thresholds
        if distilled and given[0] > (1 if by_patience else 0):
            key, least = ("patiences", 1) if by_patience else ("thresholds", 0)
            raise ValueError(
                f"measuring.{key}: begins with {given[0]:g}, but the estimate of {', '.join(distilled)} "
                f"needs the time of always leaving at the first exit; add {least}, or set cumulativeness: []"
            )
        return self

    @field_validator("answers", "prices_from")
    @classmethod
    def _home_written_out(cls, folder: str | None) -> str | None:
        """Snakemake refuses paths with ``~``."""
        return str(expanded(folder)) if folder and folder.startswith("~") else folder

    @model_validator(mode="after")
    def _published_files_are_there(self) -> Self:
        if self.answers is None:
            if self.prices_from is not None:
                raise ValueError(
                    f"prices_from: {self.prices_from}, but answers: null; name the folder of published "
                    "answers that these prices are for, or leave it out: they are measured here anyway"
                )
            return self
        for dataset, pipeline in product(self.datasets, self.measured):
            answers = [f"answers/{dataset}/{pipeline}/seed{seed}.parquet" for seed in self.seeds]
            _refuse_absent("answers", self.answers, answers)
            if self.priced_in is not None:
                prices = [f"prices/{dataset}/{pipeline.operators}{form}" for form in (".csv", ".json")]
                _refuse_absent(self._key_of_prices, self.priced_in, prices)
        return self

    @model_validator(mode="after")
    def _published_files_are_of_this_study(self) -> Self:
        if self.answers is not None:
            from pipeops.study.published import refuse_other_prices, refuse_other_study

            key = "answers"
            try:
                refuse_other_study(self, Path(self.answers))
                if self.priced_in is not None:
                    key = self._key_of_prices
                    refuse_other_prices(self, Path(self.priced_in))
            except PipeOpsError as error:
                raise ValueError(f"{key}: {error}") from None
        return self

    @field_validator("glue")
    @classmethod
    def _glue_exists(cls, source: str) -> str:
        return existing_if_path(source)

    @model_validator(mode="after")
    def _glue_has_the_tasks(self) -> Self:
        """Look for the files of a local GLUE; what is in them is checked when they are read."""
        folder = Path(self.glue)
        for task in (TASKS[name] for name in self.datasets if name in TASKS):
            if task.generated or not folder.is_dir():
                continue
            for split in SPLITS:
                if not any((folder / task.name).glob(f"{split}*")):
                    missing = f"{task.name}/{split}*"
                    raise ValueError(f"glue: '{self.glue}' has no {missing}; name a complete folder")
        return self

    @model_validator(mode="after")
    def _own_files_are_there(self) -> Self:
        """Look at the beginning of the files; what is in them is checked when they are read."""
        for name in self.datasets:
            if name in self.tasks and not self.tasks[name].hub and self.priced_in is None:
                try:
                    self.task(name)
                except PipeOpsError as error:
                    raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if self.model.student == TINY:
            raise ValueError(
                "model.student: 'tiny' is a backbone only; use 'alternate' or name a pretrained model"
            )
        kinds = {self._kind(name) for name in self.datasets}
        if self.model.backbone == TINY and "glue" in kinds:
            raise ValueError(
                "model.backbone: 'tiny' knows only the generated tasks' words, or those of your own texts; "
                "name a pretrained one"
            )
        if self.model.backbone == TINY and len(kinds) > 1:
            raise ValueError(
                "model.backbone: 'tiny' is pretrained on generated text or on texts of your own; make two "
                "studies, or name a pretrained one"
            )
        return self

    def _kind(self, name: str) -> str:
        if name in self.tasks:
            return "own"
        return "generated" if TASKS[name].generated else "glue"

    @model_validator(mode="after")
    def _fits_backbone(self) -> Self:
        """Check what can be known of the backbone without loading it; a hub's are checked when fetched."""
        try:
            backbone = architecture(self.encoder)
            student = None if self.model.student == ALTERNATE else architecture(self.model.student)
        except PipeOpsError as error:
            raise ValueError(f"model: {error}") from None
        if backbone is None:
            return self
        if self.model.max_length > backbone.max_length:
            raise ValueError(
                f"model.max_length: {self.model.max_length} is more than the backbone's "
                f"{backbone.max_length} positions; lower it"
            )
        if student and (problem := other_family(self.model.student, student.family, backbone.family)):
            raise ValueError(problem)
        if student and student.hidden_size != backbone.hidden_size:
            raise ValueError(
                f"model.student: '{self.model.student}' has hidden size {student.hidden_size}, the backbone "
                f"{backbone.hidden_size}; the losses on hidden states need the same width"
            )
        original = backbone.shape(num_labels=2)
        # Each operator says itself whether its settings fit the encoder.
        for letter in {letter for pipeline in self.measured for letter in pipeline.trained}:
            if after := OPERATORS[letter].shape:
                after(original, self.setup(letter))
        patience = max(self.measuring.patiences or [1]) if self.exits.confidence == "patience" else 1
        for pipeline in self.measured:
            priced = orderings(pipeline.operators)[0]
            ours, theirs = (shape_after(p.trained, original, self.setup) for p in (pipeline, priced))
            if pipeline.has_exits and patience > len(ours.exit_layers):
                raise ValueError(
                    f"measuring.patiences: {patience}, but {pipeline} has {len(ours.exit_layers)} exits; "
                    f"give numbers up to {len(ours.exit_layers)}"
                )
            if ours != theirs:
                raise ValueError(
                    f"{pipeline} and {priced} make models of different shapes, but a set of operators has "
                    f"one price; change the settings of {', '.join(pipeline.trained)}, or leave one out"
                )
        return self

    @model_validator(mode="after")
    def _vocabulary_can_be_pruned(self) -> Self:
        """Look at the tokenizer of a local backbone; a hub's is looked at before anything is trained."""
        path = expanded(self.model.backbone) / "tokenizer.json"
        if self.transformed and self.priced_in is None and path.is_file():
            from pipeops.data.vocabulary import refuse_other_kind

            try:
                refuse_other_kind(path)
            except PipeOpsError as error:
                raise ValueError(f"model.backbone: {error}") from None
        return self

    @model_validator(mode="after")
    def _operators_are_trained_ones(self) -> Self:
        for letter in self.training.operators:
            if letter not in TRAINABLE:
                raise ValueError(
                    f"training.operators: '{letter}' is not a trained operator; known are "
                    f"{', '.join(TRAINABLE)}"
                )
        return self

    @model_validator(mode="after")
    def _pipelines_are_trained_ones(self) -> Self:
        trained = [str(pipeline) for pipeline in self.trainings]
        for name in self.training.pipelines:
            if name not in trained:
                raise ValueError(
                    f"training.pipelines: '{name}' is not trained in this study; name one of "
                    f"{', '.join(trained)}"
                )
        return self

    def task(self, name: str) -> Task:
        """The task of this name, built in or one's own; see :func:`pipeops.data.sources.own_task`.

        Raises:
            PipeOpsError: one's own rows cannot be looked at.
        """
        return TASKS[name] if name in TASKS else own_task(name, self.tasks[name])

    def metric(self, dataset: str) -> Metric:
        """What says how good answers on a dataset are."""
        return self.tasks[dataset].metric if dataset in self.tasks else "accuracy"

    @property
    def encoder(self) -> str:
        """The backbone, by the name that its architecture is known under."""
        return TINY_OF_OWN_TEXTS if self.model.backbone == TINY and self.own_datasets else self.model.backbone

    @property
    def own_datasets(self) -> list[str]:
        """The studied datasets that are one's own."""
        return [name for name in self.datasets if name in self.tasks]

    def training_of(self, pipeline: Pipeline) -> TrainingSettings:
        """The settings of the training that makes a pipeline."""
        return self.training.of(pipeline.operator, str(pipeline))

    def steps(self, pipeline: Pipeline, examples: int) -> int:
        """Number of steps that the model that a pipeline ends in was trained, from its pretrained weights.

        D starts from pretrained weights again, so what was trained before it does not count. Nor does what an
        O that is given was trained.

        Args:
            pipeline: a trained one.
            examples: of the training split, as far as the study draws from it.
        """
        total, step = 0, pipeline
        while True:
            settings = self.training_of(step)
            kind = OPERATORS[step.operator].kind
            if kind == "trained" or (kind == "original" and not self.model.finetuned):
                total += round(-(-examples // settings.batch_size) * settings.epochs)
            if step.parent is None or OPERATORS[step.operator].restarts:
                return total
            step = step.parent

    @property
    def steps_of_orderings(self) -> dict[str, dict[str, int]]:
        """By built-in dataset and ordering: steps that the model it ends in was trained (`steps`)."""
        return {
            dataset: {
                str(ordering): self.steps(ordering, min(self.data.train_examples or rows, rows))
                for ordering in self.orderings
            }
            for dataset in self.datasets
            if dataset in TASKS
            for rows in [TASKS[dataset].rows["train"]]
        }

    @property
    def warnings(self) -> list[str]:
        """What is allowed but makes orderings differ for another reason than the order, a line each."""
        found = []
        for operators in self.operator_sets:
            trained = [letter for letter in operators if OPERATORS[letter].kind == "trained"]
            for key in ("learning_rate", "epochs"):
                values = {letter: getattr(self.training.of(letter), key) for letter in trained}
                if len(set(values.values())) > 1:
                    listed = ", ".join(f"{letter} {value:g}" for letter, value in values.items())
                    found.append(
                        f"config: training.operators: {key} differs within {operators} ({listed}), so "
                        "orderings may differ by it and not by the order; give all one value"
                    )
        for pipeline, changes in self.training.pipelines.items():
            if any(pipeline in map(str, closure(orderings(operators))) for operators in self.operator_sets):
                listed = ", ".join(f"{key} {value}" for key, value in changes.items())
                found.append(
                    f"config: training.pipelines: {pipeline} is trained by another recipe ({listed}), so "
                    "orderings may differ by it and not by the order"
                )
        return found

    def setup(self, letter: str) -> Setup:
        """What the shape, cost and inputs of an operator depend on."""
        section, model = OPERATORS[letter].section, self.model.model_copy(update={"backbone": self.encoder})
        return Setup(model=model, settings=getattr(self, section) if section else NoSettings())

    def inputs_of(self, letter: str) -> Mapping[str, str]:
        """Extra inputs of an operator's trainings: name -> path within the results."""
        return OPERATORS[letter].inputs(self.setup(letter))

    def exit_training(self, pipeline: Pipeline) -> ExitTraining:
        """What the training of a pipeline depends on of what classifiers see; the rest has its default."""
        return ExitTraining(
            pooling=self.model.pooling,
            standardise=self.exits.standardise and pipeline.has_exits,
            exit_loss=self.training.exit_loss if pipeline.has_exits else "sum",
        )

    @property
    def orderings(self) -> list[Pipeline]:
        """Every ordering of every operator set, each once: what is measured for Table 1."""
        return list(dict.fromkeys(p for operators in self.operator_sets for p in orderings(operators)))

    @property
    def measured(self) -> list[Pipeline]:
        """Every trained pipeline that is measured, each once: the orderings and `pipelines`."""
        return list(dict.fromkeys([*self.orderings, *map(Pipeline.parse, self.pipelines)]))

    @property
    def priced_in(self) -> str | None:
        """The folder of prices that exist already; None: the study measures its own, which takes data."""
        if self.prices_from is None:
            return self.answers
        return None if self.prices_from == HERE else self.prices_from

    @property
    def any_cpu(self) -> bool:
        """Whether prices may be of another CPU than this machine's: those that exist already may."""
        return self.measuring.allow_other_cpu or self.priced_in is not None

    @property
    def _key_of_prices(self) -> str:
        """The key that names this folder, for messages."""
        return "answers" if self.prices_from is None else "prices_from"

    @property
    def estimated_sets(self) -> list[str]:
        """The operator sets whose tradeoff is estimated."""
        if self.cumulativeness is None:
            return [operators for operators in self.operator_sets if _estimable(operators)]
        return self.cumulativeness

    @property
    def estimated_from(self) -> list[Pipeline]:
        """The measured pipelines that estimates are made from and compared with."""
        wanted = {part for operators in self.estimated_sets for part in parts_of(operators)}
        wanted |= {str(order) for operators in self.estimated_sets for order in orderings(operators)}
        return [pipeline for pipeline in self.measured if str(pipeline) in wanted]

    @property
    def compared_jointly(self) -> list[str]:
        """What C is compared with, C included; nothing where C is not measured."""
        if self.joint is not None:
            return self.joint
        measured = [str(pipeline) for pipeline in self.measured]
        return [pipeline for pipeline in JOINT if pipeline in measured] if "C" in measured else []

    @property
    def transformed(self) -> bool:
        """Whether V is in it."""
        return any(pipeline.transformed for pipeline in self.measured)

    @property
    def trainings(self) -> list[Pipeline]:
        """Every pipeline that is trained per dataset and seed, parents first."""
        return closure(self.measured)


if TYPE_CHECKING:

    class Config(BaseConfig):
        """A study, with a section for every operator that has settings."""
else:
    Config = create_model(
        "Config",
        __base__=BaseConfig,
        __doc__=BaseConfig.__doc__,
        **{o.section: (o.settings, o.settings()) for o in OPERATORS.values() if o.section},
    )


def load_config(values: Mapping[str, Any], *, command_line: Mapping[str, Any] | None = None) -> Config:
    """Validate a parsed configuration.

    Args:
        values: by key.
        command_line: those of them that Snakemake's ``--config`` gave. It makes texts of what lists and
            sections hold; they are read again as YAML reads them.

    Raises:
        PipeOpsError: one line per mistake, each naming its key and the remedy.
    """
    read_again = {key: _as_yaml(value) for key, value in (command_line or {}).items()}
    try:
        return Config.model_validate(_laid_over(dict(values), read_again))
    except ValidationError as error:
        found = error.errors()
        lines = [f"config: {finding(detail, Config)}" for detail in found[:_MOST_NAMED]]
        if len(found) > _MOST_NAMED:
            lines.append(f"config: and {len(found) - _MOST_NAMED} more mistakes")
        raise PipeOpsError("\n".join(lines)) from None
    except OSError as error:  # of a file or folder that it names
        raise of_system(error) or error from None


def read_study(files: Sequence[Path]) -> Config:
    """Validate configuration files laid over the defaults, later ones over earlier, as Snakemake does.

    Beside PipeOps' own ``Snakefile``, ``config.yaml`` lies under all of them there, and so it does here.

    Raises:
        PipeOpsError: a file cannot be read, or one line per mistake.
    """
    values = Config().model_dump()
    for path in [*_read_by_snakemake(), *files]:
        values = _laid_over(values, read_file(path))
    return load_config(values)


def _read_by_snakemake() -> list[Path]:
    here = Path("config.yaml")
    return [here] if here.is_file() and Path("workflow/rules/common.smk").is_file() else []


def read_file(path: Path) -> dict[str, Any]:
    """Read a configuration file as it is.

    Raises:
        PipeOpsError: it cannot be read, is no YAML, holds no keys and values, or has a key twice.
    """
    remedy = "write it as config.yaml is written"
    with reading(path, wrong="no YAML", again=remedy, absent="name a configuration file"):
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise ValueError(f"more than {_LONGEST:,} characters")
        loader = _OnceEach(text)
        loader.name = str(path)
        changes = loader.get_single_data()
    if not isinstance(changes, dict):
        raise PipeOpsError(f"{path}: holds no keys and values; see config.yaml for what it may hold")
    return changes


class _OnceEach(yaml.SafeLoader):
    """Refuses a key that stands in a mapping twice: YAML forbids it, and the library takes the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise PipeOpsError(
                        f"{key.start_mark.name}, line {key.start_mark.line + 1}: key "
                        f"'{shortened(key.value, 100)}' stands there twice; remove one"
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: Any) -> None:
        """Merge other mappings (``<<``); merges of merges may be more than fit the memory."""
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:
            mark = node.start_mark
            raise PipeOpsError(
                f"{mark.name}, line {mark.line + 1}: merges more than {_MOST_KEYS:,} keys; write them out"
            )


def _as_yaml(value: Any) -> Any:
    """What lists and sections hold, with numbers instead of their texts."""
    if isinstance(value, list):
        return [_as_yaml(_scalar(one)) for one in value]
    if isinstance(value, dict):
        return {key: _as_yaml(_scalar(one)) for key, one in value.items()}
    return value


def _scalar(text: Any) -> Any:
    try:
        value = yaml.safe_load(text) if isinstance(text, str) else text
    except yaml.YAMLError:
        return text
    return text if isinstance(value, list | dict) else value


def _laid_over(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Replace what ``changes`` names, section by section."""
    merged = dict(values)
    for key, value in changes.items():
        section = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _laid_over(merged[key], value) if section else value
    return merged


def _estimable(operators: str) -> bool:
    """Whether the equations estimate this set: E with D, P or both."""
    return "E" in operators and len(operators) > 1 and set(operators) <= set("DPE")


def _refuse_absent(key: str, folder: str, names: Sequence[str]) -> None:
    """Refuse a folder of published files that lacks one of these."""
    for name in names:
        if not Path(folder, name).is_file():
            raise ValueError(
                f"{key}: '{folder}' has no {name}; name the folder of this study's prices and answers, and "
                "only datasets, seeds and pipelines that it has"
            )


def _each_once(values: list[Any]) -> list[Any]:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"'{value}' is listed {count} times; list it once")
    return values
