import math

import pytest
import torch
from helpers import tiny_batch, tiny_model

from pipeops.operators.base import exits_loss
from pipeops.operators.losses import distillation_loss, masked_mse, soft_cross_entropy, teacher_layer


def test_soft_cross_entropy_by_hand():
    # Teacher: 3/4 and 1/4. Student: 1/2 and 1/2, so each log-probability is -log 2.
    teacher = torch.tensor([[math.log(3), 0.0]])
    student = torch.tensor([[0.0, 0.0]])
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(math.log(2))
    # Student: 1/4 and 3/4.
    student = torch.tensor([[0.0, math.log(3)]])
    expected = -(0.75 * math.log(0.25) + 0.25 * math.log(0.75))
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(expected)


def test_soft_cross_entropy_is_the_mean_over_the_batch_and_least_at_the_teacher():
    teacher = torch.tensor([[1.0, -1.0], [0.3, 0.4]])
    rows = [soft_cross_entropy(teacher[i : i + 1], teacher[i : i + 1]).item() for i in range(2)]
    at_teacher = soft_cross_entropy(teacher, teacher).item()
    assert at_teacher == pytest.approx(sum(rows) / 2)
    assert soft_cross_entropy(teacher + torch.tensor([[0.5, 0.0]]), teacher).item() > at_teacher


def test_masked_mse_by_hand():
    student = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    teacher = torch.tensor([[[0.0, 0.0], [3.0, 2.0], [0.0, 0.0]]])
    mask = torch.tensor([[1, 1, 0]])
    # Token 1: (1 + 4) / 2, token 2: (0 + 4) / 2, token 3 is padding.
    assert masked_mse(student, teacher, mask).item() == pytest.approx((2.5 + 2.0) / 2)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(6, 12, [2, 4, 6, 8, 10, 12]), (3, 6, [2, 4, 6]), (6, 6, [1, 2, 3, 4, 5, 6]), (2, 5, [3, 5])],
)
def test_teacher_layer(student, teacher, expected):
    layers = range(1, student + 1)
    assert [teacher_layer(i, student_layers=student, teacher_layers=teacher) for i in layers] == expected


@pytest.mark.parametrize(("exit_loss", "weight"), [("sum", 1), ("mean", 1 / 2)])
def test_distillation_loss_is_the_sum_of_its_parts(exit_loss, weight):
    student, teacher = tiny_model(layers=2, exits=True, seed=1), tiny_model(layers=4, exits=True, seed=2)
    batch = tiny_batch()
    mask = batch["attention_mask"]
    s, t = student(**batch), teacher(**batch)
    layers = {"student_exits": [1, 2], "teacher_exits": [1, 2, 3, 4]}
    loss = distillation_loss(s, t, mask, **layers, exit_loss=exit_loss)
    expected = (
        weight * soft_cross_entropy(s.exit_logits[0], t.exit_logits[1])  # layer 1 learns from layer 2
        + weight * soft_cross_entropy(s.exit_logits[1], t.exit_logits[3])
        + masked_mse(s.hidden_states[0], t.hidden_states[0], mask)
        + masked_mse(s.hidden_states[2], t.hidden_states[4], mask)
    )
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("exits", "share"), [(True, 4), (False, 1)])
def test_the_losses_of_exits_are_summed_or_averaged(exits, share):
    batch = tiny_batch()
    output = tiny_model(exits=exits)(**batch)
    assert exits_loss("sum")(output, batch, 0.0) is output.loss
    assert exits_loss("mean")(output, batch, 0.0).item() == pytest.approx(output.loss.item() / share)


def test_a_single_exit_learns_from_the_last():
    student, teacher = tiny_model(layers=2, seed=1), tiny_model(layers=4, seed=2)
    batch = tiny_batch()
    s, t = student(**batch), teacher(**batch)
    loss = distillation_loss(s, t, batch["attention_mask"], student_exits=[2], teacher_exits=[4])
    hidden = [
        masked_mse(s.hidden_states[i], t.hidden_states[j], batch["attention_mask"])
        for i, j in [(0, 0), (2, 4)]
    ]
    assert loss.item() == pytest.approx((soft_cross_entropy(s.logits, t.logits) + sum(hidden)).item())


def test_padding_changes_no_part_of_the_loss():
    student, teacher = tiny_model(layers=2, seed=1), tiny_model(layers=4, seed=2)
    batch = tiny_batch(rows=1, length=6)
    padded = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 5), value=1),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 5)),
    }
    losses = []
    for inputs in ({name: batch[name] for name in padded}, padded):
        exits = {"student_exits": [2], "teacher_exits": [4]}
        losses.append(
            distillation_loss(student(**inputs), teacher(**inputs), inputs["attention_mask"], **exits)
        )
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
