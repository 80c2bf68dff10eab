"""P: drop heads and FFN neurons, then distil from the unpruned parent (paper, section 3.2)."""

from pipeops.operators.base import Context, Trainee
from pipeops.pruning import importance, pruned


def prune(context: Context) -> Trainee:
    """The rewired, smaller model; its teacher is the parent as it was."""
    parent = context.parent
    assert parent is not None
    scores = importance(parent, context.importance_batches())
    settings = context.pruning
    smaller = pruned(parent, scores, keep_heads=settings.keep_heads, keep_ffn=settings.keep_ffn)
    return Trainee(smaller, parent)
