"""E: a classifier after every layer (paper, section 3.3.1)."""

from pipeops.models.multi_exit import with_all_exits
from pipeops.operators.base import Context, Trainee, exits_loss, in_one_stage


@in_one_stage
def add_exits(context: Context) -> Trainee:
    """The parent with an exit after every layer; the last keeps the parent's weights, the rest are new."""
    return Trainee(model=with_all_exits(context.teacher), loss=exits_loss)
