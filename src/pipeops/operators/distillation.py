"""D: a new, shallower student learns from the parent (Xin et al. 2022, section 3.1)."""

from pipeops.errors import PipeOpsError
from pipeops.models.backbones import load_backbone
from pipeops.models.multi_exit import from_pretrained_backbone
from pipeops.models.shape import alternate_layers
from pipeops.operators.base import Context, Trainee, distilling_from, in_one_stage, with_new_exits


@in_one_stage
def distil(context: Context) -> Trainee:
    """A student from the *pretrained* student backbone; where the parent has exits, it gets them too.

    Its classifiers pool as the parent's do.

    Raises:
        PipeOpsError: an alternate student of a one-layer backbone, or a student of another width.
    """
    teacher, student_folder = context.teacher, context.inputs.get("student")
    encoder = load_backbone(student_folder or context.backbone)
    layers = None
    if student_folder is None:
        layers = alternate_layers(encoder.config.num_hidden_layers)
        if not layers:
            raise PipeOpsError(
                "model.student: 'alternate' needs a backbone of at least two layers; name a student"
            )
    if encoder.config.hidden_size != teacher.config.hidden_size:
        raise PipeOpsError(
            f"model.student: hidden size {encoder.config.hidden_size} differs from the teacher's "
            f"{teacher.config.hidden_size}; choose a student of the teacher's width"
        )
    student = from_pretrained_backbone(
        encoder,
        sep_token_id=context.sep_token_id,
        labels=context.labels,
        layers=layers,
        pooling=teacher.config.pooling,
    )
    if teacher.config.shape.has_exits:
        student = with_new_exits(student, context.exits)
    loss = distilling_from(
        teacher, student_exits=student.config.exit_layers, exit_loss=context.exits.exit_loss
    )
    return Trainee(model=student, loss=loss)
