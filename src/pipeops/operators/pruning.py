"""P: drop heads and FFN neurons, then distil from the unpruned parent (paper, section 3.2)."""

from pipeops.operators.base import Context, Trainee, distilling_from
from pipeops.operators.importance import importance, pruned


def prune(context: Context) -> Trainee:
    """The rewired, smaller model; its teacher is the parent as it was."""
    parent = context.parent
    assert parent is not None
    settings = context.pruning
    scores = importance(parent, context.importance_batches(settings.importance_examples))
    smaller = pruned(parent, scores, keep_heads=settings.keep_heads, keep_ffn=settings.keep_ffn)
    loss = distilling_from(
        parent, student_exits=smaller.config.exit_layers, exit_loss=context.exits.exit_loss
    )
    return Trainee(model=smaller, loss=loss)
