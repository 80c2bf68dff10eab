"""What an operator declares. The rules of order, the DAG, the planner and the configuration derive from it.

Nothing heavy is imported: the function that trains is named by a string and imported by the job that runs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pipeops.models.architectures import Architecture, known_architecture
from pipeops.models.shape import ModelShape
from pipeops.models.vocabulary import Vocabulary
from pipeops.settings import ALTERNATE, ModelSection, Section

Kind = Literal["original", "transforms", "trained", "inference"]
"""What transforms is trained nowhere: it changes the model, and the backbones and data of all that follow."""

FORWARD_AND_BACKWARD = 3
"""Operations of a training step over those of its forward pass."""
STUDENT = "backbones/student/"
"""Where the workflow keeps the pretrained model that D starts from, within the results."""
CLASSIFIER = "backbones/classifier/"
"""Where it keeps the classifier that O is made of."""

# (kind of the earlier operator, of the later one) -> why this ordering makes no sense; Xin et al. 2022, 5.1
_FIRST = "it changes what trainings start from, so it comes first"
_NEVER_AFTER: Mapping[tuple[Kind, Kind], str] = {
    ("trained", "transforms"): _FIRST,
    ("inference", "transforms"): _FIRST,
    ("original", "transforms"): "O stands for 'nothing is trained', so leave it out",
    ("transforms", "original"): "O stands for 'nothing is trained', so leave it out",
    ("inference", "trained"): "training comes before what only changes inference",
    ("inference", "original"): "O stands for the original model, so it is written first",
    ("original", "trained"): "O stands for 'nothing is trained', so leave it out",
    ("trained", "original"): "O stands for 'nothing is trained', so leave it out",
}


class NoSettings(Section):
    """The section of an operator without settings of its own."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an operator's shape, cost and inputs may depend on, beside its parent."""

    model: ModelSection
    """Which encoder is fine-tuned, and which one a student starts from."""
    settings: Any
    """The operator's own section of the configuration."""
    vocabulary: Vocabulary | None = None
    """What V keeps of the vocabulary, where that is known: then the encoders know these tokens only."""

    @cached_property
    def backbone(self) -> Architecture:
        """The encoder that O starts from.

        Raises:
            PipeOpsError: its architecture is not known without asking the hub.
        """
        return known_architecture(self.model.backbone, "model.backbone")

    @cached_property
    def student(self) -> Architecture | None:
        """The pretrained model that D starts from; None: every second layer of the backbone.

        Raises:
            PipeOpsError: its architecture is not known without asking the hub.
        """
        if self.model.student == ALTERNATE:
            return None
        return known_architecture(self.model.student, "model.student")


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training, as far as its cost goes."""

    before: ModelShape
    """Of the model that the operator is applied to; O's own shape for O."""
    after: ModelShape
    """Of the model that comes out."""
    passes: float
    """Training examples times epochs."""
    length: int
    """Mean tokens of an example."""
    rows: Mapping[str, int]
    """Examples of each split, ``train`` and ``validation``, before any are drawn."""
    setup: Setup

    def forward(self, shape: ModelShape) -> int:
        """Operations of one example's forward pass through a model, all its exits included."""
        return shape.flops(self.length)[-1]


Shape = Callable[[ModelShape, Setup], ModelShape]
Flops = Callable[[Work], float]
Inputs = Callable[[Setup], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An efficiency method. What is below ``never_before`` is declared by operators that are trained."""

    letter: str
    """One upper-case letter, its name in pipelines."""
    name: str
    kind: Kind
    never_after: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Letters that must not come anywhere before this one, each with the reason."""
    never_before: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Letters that must not come anywhere after this one, each with the reason."""
    target: str = ""
    """``module:function`` that takes a ``base.Context`` and returns the ``base.Stage``s of the training."""
    shape: Shape | None = None
    """The shape of the model that comes out, from that of the model that goes in."""
    flops: Flops | None = None
    """Floating-point operations of one training."""
    revision: int = 1
    """Raised by hand when a change of the code changes results; a raise retrains it and all after it."""
    section: str = ""
    """Key of its section in the configuration; empty where it has none."""
    settings: type[Section] = NoSettings
    """That section: keys, defaults, ranges. What it does not depend on must not be in it."""
    inputs: Inputs = lambda _: {}
    """Extra inputs: name -> path within the results. ``{dataset}`` stands for the task; a path that ends in
    ``/`` is a folder with a pretrained model, any other a tokenised split."""
    input_names: tuple[str, ...] = ()
    """Names that ``inputs`` may use; any other is refused before anything is read."""
    restarts: bool = False
    """Whether it starts from pretrained weights again, so that earlier trainings leave no trace in them."""
    adds_exits: bool = False
    """Whether its model has a classifier before the last layer, whatever went in."""

    def refuses(self, earlier: "Operator") -> str | None:
        """Say why this operator cannot come after ``earlier``; None where it can."""
        return (
            self.never_after.get(earlier.letter)
            or earlier.never_before.get(self.letter)
            or _NEVER_AFTER.get((earlier.kind, self.kind))
        )


def trained_on_labels(work: Work) -> float:
    """Operations of a training without a teacher."""
    return work.passes * FORWARD_AND_BACKWARD * work.forward(work.after)


def distilled_from_parent(work: Work) -> float:
    """Operations of a training in which the parent answers every batch too."""
    return trained_on_labels(work) + work.passes * work.forward(work.before)
