"""What an operator is given and what it hands to the training."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pipeops.modeling import MultiExitForSequenceClassification
from pipeops.sections import PruningSection


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything an operator may start from."""

    parent: MultiExitForSequenceClassification | None
    """The trained model that the operator is applied to; None for O."""
    backbone: Path
    """Folder of the pretrained encoder that O starts from."""
    student: Path | None
    """Folder of the pretrained encoder that D starts from; None: every second layer of ``backbone``."""
    labels: Sequence[str]
    """Class names in the order of their ids."""
    sep_token_id: int
    """The token that ends a segment."""
    pruning: PruningSection
    """Settings of P."""
    importance_batches: Callable[[], Iterable[Mapping[str, Tensor]]]
    """Batches of the split over which P accumulates importance, labels included."""


@dataclass(frozen=True)
class Trainee:
    """What is trained.

    Without a teacher the loss is the sum of the exits' cross-entropies, with one it is the distillation
    loss (:func:`pipeops.losses.distillation_loss`).
    """

    model: MultiExitForSequenceClassification
    teacher: MultiExitForSequenceClassification | None = None
