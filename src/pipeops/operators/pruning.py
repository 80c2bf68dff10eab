"""P: drop heads and FFN neurons, then distil from the unpruned parent (Xin et al. 2022, 3.2)."""

from pipeops.operators.base import Context, Trainee, distilling_from, in_one_stage
from pipeops.operators.importance import importance, pruned


@in_one_stage
def prune(context: Context) -> Trainee:
    """The rewired, smaller model; its teacher is the parent as it was."""
    parent, settings = context.teacher, context.settings
    batches = context.batches(settings.importance_examples, split="importance_data")
    scores = importance(parent, batches)
    smaller = pruned(parent, scores, keep_heads=settings.keep_heads, keep_ffn=settings.keep_ffn)
    loss = distilling_from(
        parent, student_exits=smaller.config.exit_layers, exit_loss=context.exits.exit_loss
    )
    return Trainee(model=smaller, loss=loss)
