"""The trained operators. Each says, stage by stage, what is trained and on what loss."""

from collections.abc import Callable, Mapping, Sequence

from pipeops.operators.base import Context, Stage, Trainee
from pipeops.operators.costeff import slenderise_jointly
from pipeops.operators.distillation import distil
from pipeops.operators.early_exit import add_exits
from pipeops.operators.finetuning import finetune
from pipeops.operators.pruning import prune


def _in_one_stage(prepare: Callable[[Context], Trainee]) -> Callable[[Context], list[Stage]]:
    return lambda context: [Stage(name="training", prepare=lambda _: prepare(context))]


STAGES: Mapping[str, Callable[[Context], Sequence[Stage]]] = {
    "O": _in_one_stage(finetune),
    "D": _in_one_stage(distil),
    "P": _in_one_stage(prune),
    "E": _in_one_stage(add_exits),
    "C": slenderise_jointly,
}
"""Operator letter -> its trainings, in order."""

__all__ = ["STAGES", "Context", "Stage", "Trainee"]
