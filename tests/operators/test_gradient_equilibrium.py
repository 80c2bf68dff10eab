"""Gradient equilibrium against what it claims: every exit above weighs the same at every layer."""

import torch
from helpers import tiny_batch, tiny_model

from pipeops.operators.gradient_equilibrium import gradient_equilibrium


def gradient_at(model, layer, exit_index, *, balanced):
    """Gradient of one exit's loss with respect to the output of a layer."""
    model.zero_grad()
    batch = tiny_batch()
    features = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if balanced:
        with gradient_equilibrium(model):
            outputs = model(**features)
            loss = torch.nn.functional.cross_entropy(outputs.exit_logits[exit_index], batch["labels"])
            return torch.autograd.grad(loss, outputs.hidden_states[layer])[0]
    outputs = model(**features)
    loss = torch.nn.functional.cross_entropy(outputs.exit_logits[exit_index], batch["labels"])
    return torch.autograd.grad(loss, outputs.hidden_states[layer])[0]


def test_every_exit_above_weighs_one_over_their_number():
    model = tiny_model(exits=True)  # four layers
    for layer in (1, 2, 3):
        exits_above = 4 - layer + 1
        for exit_index in range(layer - 1, 4):
            plain = gradient_at(model, layer, exit_index, balanced=False)
            balanced = gradient_at(model, layer, exit_index, balanced=True)
            torch.testing.assert_close(balanced, plain / exits_above)


def test_answers_do_not_change_and_nothing_stays_behind():
    model = tiny_model(exits=True)
    batch = tiny_batch()
    before = model(**batch)
    with gradient_equilibrium(model):
        during = model(**batch)
    for one, other in zip(before.exit_logits, during.exit_logits, strict=True):
        assert torch.equal(one, other)
    plain = gradient_at(model, 1, 3, balanced=False)
    with gradient_equilibrium(model):
        pass
    assert torch.equal(gradient_at(model, 1, 3, balanced=False), plain)
