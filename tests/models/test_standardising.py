"""Standardisation against numpy, and the batches that have no statistics."""

import pytest
import torch

from pipeops.models.standardising import MOMENTUM, Standardisation


def test_training_uses_the_batchs_statistics():
    x = torch.randn(50, 3) * torch.tensor([1e-3, 1.0, 20.0]) + torch.tensor([5.0, 0.0, -2.0])
    y = Standardisation(3).train()(x)
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(y.std(dim=0, correction=0), torch.ones(3), atol=1e-2, rtol=0)


def test_what_is_kept_averages_all_batches_and_later_the_newest():
    module, batches = Standardisation(1), [torch.randn(8, 1) + k for k in range(5)]
    for batch in batches:
        module(batch)
    means = torch.stack([batch.mean() for batch in batches])
    variances = torch.stack([batch.var() for batch in batches])
    assert module.mean.item() == pytest.approx(means.mean().item(), rel=1e-5)
    assert module.variance.item() == pytest.approx(variances.mean().item(), rel=1e-5)
    for _ in range(20):
        module(batches[0])
    before, newest = module.mean.item(), torch.full((2, 1), 100.0)
    module(newest)
    assert module.mean.item() == pytest.approx(before + MOMENTUM * (100 - before), rel=1e-5)


def test_evaluation_uses_what_is_kept_and_changes_nothing():
    module = Standardisation(4)
    module(torch.randn(16, 4))
    module.eval()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(5, 4) + 3
    expected = (x - kept["mean"]) / kept["variance"].sqrt()
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("before", [0, 1])
def test_a_batch_of_one_is_finite_and_leaves_no_trace(before):
    module = Standardisation(4).train()
    for _ in range(before):
        module(torch.randn(8, 4))
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(1, 4, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


def test_equal_examples_are_finite():
    x = torch.ones(8, 4, requires_grad=True)
    y = Standardisation(4)(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_bf16_is_standardised_in_fp32():
    x = (torch.randn(64, 4) * 0.05 + 3).bfloat16()
    y = Standardisation(4)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(4), atol=1e-3, rtol=0)
