"""E: a classifier after every layer (paper, section 3.3.1)."""

from pipeops.operators.base import Context, Trainee, exits_loss, with_new_exits


def add_exits(context: Context) -> Trainee:
    """The parent with an exit after every layer; the last keeps the parent's weights, the rest are new."""
    assert context.parent is not None
    return Trainee(
        model=with_new_exits(context.parent, context.exits), loss=exits_loss(context.exits.exit_loss)
    )
