"""O: fine-tune the pretrained backbone."""

from pipeops.models.backbones import load_backbone
from pipeops.models.multi_exit import from_pretrained_backbone
from pipeops.operators.base import Context, Trainee, exits_loss, in_one_stage


@in_one_stage
def finetune(context: Context) -> Trainee:
    """The pretrained encoder with a new classifier after its last layer."""
    encoder = load_backbone(context.backbone)
    model = from_pretrained_backbone(
        encoder, sep_token_id=context.sep_token_id, labels=context.labels, pooling=context.exits.pooling
    )
    return Trainee(model=model, loss=exits_loss(context.exits.exit_loss))
