"""C's stages: what each is trained on, against the losses written out."""

import pytest
import torch
from helpers import tiny_batch, tiny_model, write_backbone
from torch.nn import functional as F

from pipeops.errors import PipeOpsError
from pipeops.operators.base import Context
from pipeops.operators.builtin import CostEffSection
from pipeops.operators.costeff import slenderise_jointly
from pipeops.operators.losses import hidden_states_loss, soft_cross_entropy
from pipeops.settings import ExitTraining

WIDTH = {"heads": 2, "ffn": 6, "rank": 8}


def context(tmp_path, **settings) -> Context:
    parent = tiny_model(seed=3)
    return Context(
        parent=parent,
        backbone=write_backbone(tmp_path / "base"),
        labels=["no", "yes"],
        sep_token_id=2,
        settings=CostEffSection(**(WIDTH | settings)),
        exits=ExitTraining(),
        batches=lambda _: [tiny_batch(), tiny_batch(seed=1)],
    )


def stages_of(given: Context):
    """The stages by name, and what ``finished`` gives them: the assistant, or what was slenderised of it."""
    stages = {stage.name: stage for stage in slenderise_jointly(given)}
    models = {"assistant": lambda: tiny_model(exits=True, seed=4)}
    for name, before in (("step1", "assistant"), ("step2", "step1"), ("recovery", "step2")):
        if before in models and name in stages:
            prepared = stages[name].prepare(lambda wanted: models[wanted]())
            models[name] = lambda model=prepared.model: model.eval()
    return stages, lambda name: models[name]()


def test_the_assistant_learns_from_the_last_answer_of_o_and_from_the_labels(tmp_path):
    given = context(tmp_path)
    stages, finished = stages_of(given)
    trainee = stages["assistant"].prepare(finished)
    assert trainee.equilibrium
    assert trainee.model.config.exit_layers == [1, 2, 3, 4]
    batch = tiny_batch()
    output = trainee.model.eval()(**batch)
    answer = given.parent(**batch).logits
    soft = sum(soft_cross_entropy(logits, answer) for logits in output.exit_logits)
    hard = sum(F.cross_entropy(logits, batch["labels"]) for logits in output.exit_logits)
    assert trainee.loss(output, batch, 0.0).item() == pytest.approx((soft + hard).item() / 2, rel=1e-5)


@pytest.mark.parametrize("stage", ["step1", "step2", "recovery", "final"])
def test_hidden_states_first_then_exit_by_exit(tmp_path, stage):
    stages, finished = stages_of(context(tmp_path, hidden_only=0.6))
    trainee, batch = stages[stage].prepare(finished), tiny_batch()
    output, target = trainee.model.eval()(**batch), finished("assistant")(**batch)
    hidden = hidden_states_loss(output, target, batch["attention_mask"])
    pairs = zip(output.exit_logits, target.exit_logits, strict=True)
    answers = sum(soft_cross_entropy(ours, theirs) for ours, theirs in pairs)
    from_when = {"recovery": 1, "final": 0}.get(stage, 0.6)
    for progress in (0.0, 0.59, 0.6, 0.99):
        expected = hidden + answers if progress >= from_when else hidden
        assert trainee.loss(output, batch, progress).item() == pytest.approx(expected.item(), rel=1e-5)


def test_steps_narrow_by_a_head_and_grow_the_learning_rate(tmp_path):
    stages, finished = stages_of(context(tmp_path, learning_rate_growth=1.5))
    shapes = [finished(name).config.shape for name in ("step1", "step2", "recovery")]
    assert [set(shape.heads_per_layer) for shape in shapes] == [{3}, {2}, {2}]
    assert [set(shape.ffn_per_layer) for shape in shapes] == [{15}, {6}, {6}]
    assert [shape.embedding_rank for shape in shapes] == [12, 8, 8]
    rates = [stage.learning_rate for stage in stages.values()]
    assert rates == [1, 1, 1.5, 1.5, 1]


def test_without_an_assistant_o_teaches_every_exit(tmp_path):
    given = context(tmp_path, teacher="fine-tuned")
    stages, finished = stages_of(given)
    assert list(stages) == ["step1", "step2", "recovery", "final"]
    trainee, batch = stages["step1"].prepare(finished), tiny_batch()
    output, target = trainee.model.eval()(**batch), given.parent(**batch)
    hidden = hidden_states_loss(output, target, batch["attention_mask"])
    answers = sum(soft_cross_entropy(logits, target.logits) for logits in output.exit_logits)
    assert trainee.loss(output, batch, 1.0).item() == pytest.approx((hidden + answers).item(), rel=1e-5)


def test_the_last_exits_importance_is_blind_to_what_only_the_others_need(tmp_path, monkeypatch):
    """A head that feeds nothing but the first exit: its loss sees it, the last exit's does not."""
    seen = {}

    def noted(model, scores, **width):
        seen["scores"] = scores
        return model

    monkeypatch.setattr("pipeops.operators.costeff.slender", noted)
    for importance in ("all-exits", "last-exit"):
        given = context(tmp_path / importance, importance=importance, schedule="one-shot")

        def finished(_):
            model = tiny_model(exits=True, seed=4)
            # Layer 2 forgets what comes in, but for the token itself: nothing before it matters later.
            with torch.no_grad():
                model.layers[1].attention.output.LayerNorm.weight.zero_()
            return model

        stages = {stage.name: stage for stage in slenderise_jointly(given)}
        stages["step1"].prepare(finished)
        seen[importance] = seen["scores"].heads[0].abs().sum().item()
    assert seen["all-exits"] > 1e-6
    assert seen["last-exit"] == 0


def test_a_width_that_cannot_be_is_refused_before_training(tmp_path):
    with pytest.raises(PipeOpsError, match="costeff.rank: 17 is more than the backbone's 16"):
        slenderise_jointly(context(tmp_path, rank=17))
