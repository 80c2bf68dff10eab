"""The operators that PipeOps comes with: one declaration each, with its section of the configuration."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeops.files import expanded
from pipeops.models.shape import ModelShape, alternate_layers
from pipeops.operators.declaration import (
    CLASSIFIER,
    FORWARD_AND_BACKWARD,
    STUDENT,
    Operator,
    Setup,
    Work,
    distilled_from_parent,
    trained_on_labels,
)
from pipeops.operators.width import full_width, target_width, widths
from pipeops.settings import NUMBER, Examples, FilePath, Fraction, PositiveInt, Section, Share, kept_count

C_REPLACES = "C replaces D, P and E"
WIDTHS = ("heads", "ffn", "rank")
"""What C makes smaller."""


def _unchanged(before: ModelShape, _: Setup) -> ModelShape:
    return before


def _original_flops(work: Work) -> float:
    return 0 if work.setup.model.finetuned else trained_on_labels(work)


def _original_inputs(setup: Setup) -> Mapping[str, str]:
    if not setup.model.finetuned:
        return {}
    return {"classifier": CLASSIFIER, "validation": "data/{dataset}/validation.parquet"}


ORIGINAL = Operator(
    letter="O",
    name="original",
    kind="original",
    target="pipeops.operators.finetuning:finetune",
    shape=_unchanged,
    flops=_original_flops,
    inputs=_original_inputs,
    input_names=("classifier", "validation"),
)


class VocabularySection(Section):
    """What V keeps beside the tokens that the training texts use, special tokens, and characters or bytes."""

    size: PositiveInt | None = None
    """At least so many tokens are kept: the first of the pretrained vocabulary fill up. null: no more than
    needed."""
    texts: list[FilePath] = Field([])
    """Text files (UTF-8) whose tokens are kept too: what the model will read beside the training texts."""

    @field_validator("texts")
    @classmethod
    def _texts_are_there(cls, paths: list[str]) -> list[str]:
        for path in paths:
            if not expanded(path).is_file():
                raise ValueError(f"'{path}' is no file; name text files")
        return paths


def _with_kept_tokens(before: ModelShape, setup: Setup) -> ModelShape:
    """How many tokens are kept is known once the texts are read; a plan counts all."""
    return setup.vocabulary.applied(before) if setup.vocabulary else before


VOCABULARY_PRUNING = Operator(
    letter="V",
    name="vocabulary pruning",
    kind="transforms",
    target="pipeops.operators.vocabulary:prune_vocabulary",
    shape=_with_kept_tokens,
    flops=lambda _: 0,
    section="vocabulary",
    settings=VocabularySection,
)


def _distilled(before: ModelShape, setup: Setup) -> ModelShape:
    """A plain encoder again: half the layers, or the student's own shape; exits where the parent has them."""
    encoder = setup.student or setup.backbone
    shape = encoder.shape(
        num_labels=before.num_labels, sep_token_id=before.sep_token_id, pooling=before.pooling
    )
    if setup.student is None:
        shape = shape.with_layers(alternate_layers(before.num_layers))
    return shape.with_all_exits() if before.has_exits else shape


DISTILLATION = Operator(
    letter="D",
    name="distillation",
    kind="trained",
    never_after={"P": "a new student throws the pruning away", "C": C_REPLACES},
    target="pipeops.operators.distillation:distil",
    shape=_distilled,
    flops=distilled_from_parent,
    inputs=lambda setup: {"student": STUDENT} if setup.model.has_student else {},
    input_names=("student",),
    restarts=True,
)


class PruningSection(Section):
    """What P keeps. Xin et al. 2022: 8 of 12 heads, 1536 of 3072 neurons, importance on validation rows."""

    keep_heads: Fraction = 0.5
    """Fraction of each layer's attention heads that is kept."""
    keep_ffn: Fraction = 0.5
    """Fraction of each layer's FFN neurons that is kept."""
    importance_split: Literal["train", "validation"] = "train"
    """Split over which importance is accumulated."""
    importance_examples: Examples | None = 1000
    """Examples of that split, drawn once; null: all."""


def _pruned(before: ModelShape, setup: Setup) -> ModelShape:
    kept: PruningSection = setup.settings
    heads = [kept_count(kept.keep_heads, n, what="pruning.keep_heads") for n in before.heads_per_layer]
    ffn = [kept_count(kept.keep_ffn, n, what="pruning.keep_ffn") for n in before.ffn_per_layer]
    return replace(before, heads_per_layer=tuple(heads), ffn_per_layer=tuple(ffn))


def _pruning_flops(work: Work) -> float:
    kept: PruningSection = work.setup.settings
    rows = work.rows[kept.importance_split]
    examples = min(kept.importance_examples or rows, rows)
    return distilled_from_parent(work) + examples * FORWARD_AND_BACKWARD * work.forward(work.before)


def _pruning_inputs(setup: Setup) -> Mapping[str, str]:
    split = setup.settings.importance_split
    return {} if split == "train" else {"importance_data": f"data/{{dataset}}/{split}.parquet"}


PRUNING = Operator(
    letter="P",
    name="structured pruning",
    kind="trained",
    never_after={"C": C_REPLACES},
    target="pipeops.operators.pruning:prune",
    shape=_pruned,
    flops=_pruning_flops,
    section="pruning",
    settings=PruningSection,
    inputs=_pruning_inputs,
    input_names=("importance_data",),
)

EARLY_EXITING = Operator(
    letter="E",
    name="early exiting",
    kind="trained",
    never_after={"C": C_REPLACES},
    target="pipeops.operators.early_exit:add_exits",
    shape=lambda before, _: before.with_all_exits(),
    flops=trained_on_labels,
    adds_exits=True,
)


class CostEffSection(Section):
    """C (COST-EFF): how slender the model becomes, and how it is trained.

    Epochs and learning rate of its stages are those of `training`.
    """

    compression: Annotated[float, Field(gt=1, le=1e6, allow_inf_nan=False), NUMBER] | None = 6
    """O's number of weights over C's, exits' classifiers not counted; heads, FFN neurons and rank follow from
    it. null: they are given below."""
    heads: PositiveInt | None = None
    """Attention heads of each layer."""
    ffn: PositiveInt | None = None
    """FFN neurons of each layer."""
    rank: PositiveInt | None = None
    """Rank of the word embeddings."""
    importance: Literal["all-exits", "last-exit"] = "all-exits"
    """Whose loss says which heads and neurons matter."""
    schedule: Literal["iterative", "one-shot"] = "iterative"
    """Slenderise by one head per layer and step, or all at once; the number of epochs is the same."""
    teacher: Literal["assistant", "fine-tuned"] = "assistant"
    """Who teaches: a multi-exit model of full size that O taught, or O itself."""
    importance_examples: Examples | None = 1000
    """Training examples over which importance is accumulated, drawn once; null: all (Shen et al. 2022)."""
    hidden_only: Share = 0.6
    """Fraction of each slenderising step that learns from hidden states only (Shen et al. 2022: 0.5-0.7)."""
    learning_rate_growth: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False), NUMBER] = 1.12
    """The learning rate is multiplied by this from step to step."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_replace_the_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and any(values.get(name) is not None for name in WIDTHS):
            return {"compression": None} | values
        return values

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        missing = [name for name in WIDTHS if getattr(self, name) is None]
        if self.compression is not None and len(missing) < len(WIDTHS):
            raise ValueError("give either compression or heads, ffn and rank; set compression: null")
        if self.compression is None and missing:
            raise ValueError(f"{', '.join(missing)} not given; name heads, ffn and rank, or a compression")
        return self


def _slenderised(before: ModelShape, setup: Setup) -> ModelShape:
    return before.with_width(**asdict(target_width(setup.settings, setup.backbone))).with_all_exits()


def _costeff_flops(work: Work) -> float:
    """Operations of C's stages; importance, a few examples, is not counted."""
    backbone = work.setup.backbone
    target = target_width(work.setup.settings, backbone)
    assistant = work.before.with_all_exits()
    steps = widths(full_width(backbone), target)
    # Recovery and final distillation come last.
    narrow = [assistant.with_width(**asdict(width)) for width in (*steps, target, target)]
    taught = [(assistant, work.before), *((model, assistant) for model in narrow)]
    return work.passes * sum(
        FORWARD_AND_BACKWARD * work.forward(model) + work.forward(teacher) for model, teacher in taught
    )


COSTEFF = Operator(
    letter="C",
    name="COST-EFF",
    kind="trained",
    never_after=dict.fromkeys("DPE", C_REPLACES),
    target="pipeops.operators.costeff:slenderise_jointly",
    shape=_slenderised,
    flops=_costeff_flops,
    section="costeff",
    settings=CostEffSection,
    adds_exits=True,
)

DYNAMIC_LENGTH = Operator(letter="L", name="dynamic length", kind="inference")
QUANTISATION = Operator(letter="Q", name="quantisation", kind="inference")

BUILTIN = (
    *(ORIGINAL, VOCABULARY_PRUNING, DISTILLATION, PRUNING, EARLY_EXITING, COSTEFF),
    *(DYNAMIC_LENGTH, QUANTISATION),
)
"""In the order in which sets of operators are written."""
