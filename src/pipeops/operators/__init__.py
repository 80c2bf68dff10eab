"""The trained operators. Each says what is trained and, where it distils, from which teacher."""

from collections.abc import Callable, Mapping

from pipeops.operators.base import Context, Trainee
from pipeops.operators.distillation import distil
from pipeops.operators.early_exit import add_exits
from pipeops.operators.finetuning import finetune
from pipeops.operators.structured_pruning import prune

PREPARE: Mapping[str, Callable[[Context], Trainee]] = {
    "O": finetune,
    "D": distil,
    "P": prune,
    "E": add_exits,
}
"""Operator letter -> what it trains."""

__all__ = ["PREPARE", "Context", "Trainee"]
