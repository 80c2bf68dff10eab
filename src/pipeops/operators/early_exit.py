"""E: a classifier after every layer (Xin et al. 2022, section 3.3.1)."""

from pipeops.operators.base import Context, Trainee, exits_loss, in_one_stage, with_new_exits


@in_one_stage
def add_exits(context: Context) -> Trainee:
    """The parent with an exit after every layer; the last keeps the parent's weights, the rest are new."""
    model = with_new_exits(context.teacher, context.exits)
    return Trainee(model=model, loss=exits_loss(context.exits.exit_loss))
