"""F: low-rank factorisation of the FFN. The declaration; nothing heavy is imported here."""

from dataclasses import replace

from pipeops.models.shape import ModelShape
from pipeops.operators.declaration import Operator, Setup, distilled_from_parent
from pipeops.settings import Fraction, Section, kept_count


class LowRankSection(Section):
    """What F keeps."""

    keep_rank: Fraction = 0.5
    """Fraction of the FFN matrices' full rank, the smaller of their two sizes, that is kept."""


def kept_rank(shape: ModelShape, keep_rank: float) -> int:
    """The rank that all FFN matrices get; the narrowest layer has the full rank that counts.

    Raises:
        UnusableSetting: it would be 0.
    """
    full_rank = min(shape.hidden_size, *shape.ffn_per_layer)
    return kept_count(keep_rank, full_rank, what="low_rank.keep_rank")


def _factorised(before: ModelShape, setup: Setup) -> ModelShape:
    return replace(before, ffn_rank=kept_rank(before, setup.settings.keep_rank))


LOW_RANK = Operator(
    letter="F",
    name="low-rank FFN",
    kind="trained",
    never_after={"C": "C has chosen its own width and rank"},
    never_before={
        "D": "a new student throws the factorisation away",
        "C": "C judges FFN neurons by matrices that are not factorised",
    },
    target="pipeops_low_rank.factorising:factorise",
    shape=_factorised,
    flops=distilled_from_parent,
    section="low_rank",
    settings=LowRankSection,
)
