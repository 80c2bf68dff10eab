"""C: a slender multi-exit model, trained jointly (COST-EFF).

    O -> teaching assistant -> slenderised step by step -> recovery -> final distillation

The assistant has O's size and an exit after every layer. Each step drops what matters least to *every* exit,
then learns from the assistant: from its hidden states first, then also exit by exit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeops.errors import PipeOpsError
from pipeops.models.architectures import architecture
from pipeops.models.multi_exit import (
    MultiExitForSequenceClassification,
    MultiExitOutput,
    standardise_exits,
    with_all_exits,
)
from pipeops.operators.base import Context, Finished, Stage, Trainee, teacher_outputs, with_new_exits
from pipeops.operators.losses import hidden_states_loss, masked_mse, soft_and_hard_loss
from pipeops.operators.slenderising import slender, weight_importance
from pipeops.operators.width import Width, full_width, target_width, widths

ASSISTANT = "assistant"
ASSISTANT_SOFT = 0.5
"""Weight of the teacher's part in the assistant's loss."""
IMPORTANCE_SOFT = 0.9
"""Weight of the teacher's part in the loss that importance is taken from."""


def slenderise_jointly(context: Context) -> list[Stage]:
    """The stages of C.

    Raises:
        PipeOpsError: the target width does not fit the backbone.
    """
    settings = context.settings
    backbone = architecture(str(context.backbone))
    if backbone is None:
        raise PipeOpsError(f"{context.backbone}: not a folder; fetch the backbone first")
    target = target_width(settings, backbone)
    steps = widths(full_width(backbone), target)
    epochs = 1
    if settings.schedule == "one-shot":
        steps, epochs = [target], len(steps)
    has_assistant = settings.teacher == "assistant"
    stages = [Stage(name=ASSISTANT, prepare=lambda _: _assistant(context))] if has_assistant else []
    for number, width in enumerate(steps, start=1):
        previous = stages[-1].name if stages else None
        stages.append(
            Stage(
                name=f"step{number}",
                prepare=_Step(context, previous, width),
                epochs=epochs,
                learning_rate=settings.learning_rate_growth ** (number - 1),
            )
        )
    last_step, last_rate = stages[-1].name, stages[-1].learning_rate
    # Without an assistant its epochs go here, so that what is compared has been trained equally long.
    recovery_epochs = 1 if has_assistant else 2
    return [
        *stages,
        Stage(
            name="recovery",
            prepare=_Distilled(context, last_step, hidden_only=1),
            epochs=recovery_epochs,
            learning_rate=last_rate,
        ),
        Stage(name="final", prepare=_Distilled(context, "recovery", hidden_only=0)),
    ]


@dataclass(frozen=True)
class _Teacher:
    """The assistant, or the fine-tuned model, as a teacher of every exit."""

    model: MultiExitForSequenceClassification

    def outputs(self, batch: Mapping[str, Tensor], *, exits: int) -> tuple[MultiExitOutput, Sequence[Tensor]]:
        """Its output, and the logits that each exit learns from. A teacher with a single exit teaches all."""
        output = teacher_outputs(self.model, batch)
        assert output.exit_logits is not None
        logits = output.exit_logits
        return output, logits if len(logits) == exits else logits[-1:] * exits


@dataclass(frozen=True)
class _Step:
    """Slenderise the model of the stage before to ``width``, then distil."""

    context: Context
    previous: str | None
    """Stage that it starts from; None: O with new exits."""
    width: Width

    def __call__(self, finished: Finished) -> Trainee:
        settings, teacher = self.context.settings, _teacher(self.context, finished)
        model = finished(self.previous) if self.previous else with_all_exits(self.context.teacher)
        last_only = settings.importance == "last-exit"
        scores = weight_importance(
            model,
            self.context.batches(settings.importance_examples),
            lambda model, batch: _importance_loss(model(**batch), batch, teacher, last_only=last_only),
        )
        narrower = slender(model, scores, heads=self.width.heads, ffn=self.width.ffn, rank=self.width.rank)
        if self.previous is None and self.context.exits.standardise:
            standardise_exits(narrower, narrower.config.exit_layers[:-1])
        return _trainee(narrower, teacher, hidden_only=settings.hidden_only)


@dataclass(frozen=True)
class _Distilled:
    """Train the slender model of the stage before once more."""

    context: Context
    previous: str
    hidden_only: float

    def __call__(self, finished: Finished) -> Trainee:
        teacher = _teacher(self.context, finished)
        return _trainee(finished(self.previous), teacher, hidden_only=self.hidden_only)


def _assistant(context: Context) -> Trainee:
    """O with all exits; each learns from O's final answer and from the labels."""
    parent = context.teacher
    model = with_new_exits(parent, context.exits)
    teacher = _Teacher(parent)

    def loss(output: MultiExitOutput, batch: Mapping[str, Tensor], progress: float) -> Tensor:  # noqa: ARG001
        _, logits = teacher.outputs(batch, exits=len(model.exits))
        return soft_and_hard_loss(output, logits, batch["labels"], soft=ASSISTANT_SOFT)

    return Trainee(model=model, loss=loss, equilibrium=True)


def _trainee(model: MultiExitForSequenceClassification, teacher: _Teacher, *, hidden_only: float) -> Trainee:
    """Learn the teacher's hidden states and, once ``hidden_only`` of the training is done, its answers."""

    def loss(output: MultiExitOutput, batch: Mapping[str, Tensor], progress: float) -> Tensor:
        target, logits = teacher.outputs(batch, exits=len(model.exits))
        total = hidden_states_loss(output, target, batch["attention_mask"])
        if progress >= hidden_only:
            total = total + soft_and_hard_loss(output, logits, batch["labels"], soft=1)
        return total

    return Trainee(model=model, loss=loss, equilibrium=True)


def _importance_loss(
    output: MultiExitOutput, batch: Mapping[str, Tensor], teacher: _Teacher, *, last_only: bool
) -> Tensor:
    """The loss of every exit, answers and hidden states, or of the last exit and layer only."""
    assert output.exit_logits is not None
    target, logits = teacher.outputs(batch, exits=len(output.exit_logits))
    if not last_only:
        answers = soft_and_hard_loss(output, logits, batch["labels"], soft=IMPORTANCE_SOFT)
        return answers + hidden_states_loss(output, target, batch["attention_mask"])
    assert output.hidden_states is not None
    assert target.hidden_states is not None
    last = MultiExitOutput(exit_logits=output.exit_logits[-1:])
    answer = soft_and_hard_loss(last, logits[-1:], batch["labels"], soft=IMPORTANCE_SOFT)
    return answer + masked_mse(output.hidden_states[-1], target.hidden_states[-1], batch["attention_mask"])


def _teacher(context: Context, finished: Finished) -> _Teacher:
    assisted = context.settings.teacher == "assistant"
    return _Teacher(finished(ASSISTANT) if assisted else context.teacher)
