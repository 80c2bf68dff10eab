"""MPNet's layers as ONNX: biases of short and long inputs, against PyTorch and with padding."""

import numpy as np
import pytest
import torch
from export_models import mpnet

from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.onnx.export import export
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import Profiler

LONGEST = 300
"""Tokens: more than two and a half times the distance from which on there is one bucket."""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model in PyTorch whose layers have other heads, and as it is exported, in fp32 and int8."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    shape = mpnet(heads_per_layer=(4, 1, 3), max_position_embeddings=LONGEST + 2)
    config = MultiExitConfig.from_shape(shape).with_shape(initializer_range=0.5)
    model = MultiExitForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    export(folder, folder)
    graphs = (graph_path(folder, "profile", quantised=quantised) for quantised in (False, True))
    return model, *(Profiler.load(graph, threads=1) for graph in graphs)


@pytest.mark.parametrize("length", [1, 2, 8, 9, 20, 130, LONGEST])
@pytest.mark.parametrize("padding", [0, 1, 40])
def test_biases_are_those_of_pytorch_and_padding_changes_nothing(both, length, padding):
    model, exact, quantised = both
    ids = np.random.default_rng(length).integers(3, 50, (1, length))
    mask, more = np.ones_like(ids), min(padding, LONGEST - length)
    padded = np.pad(ids, ((0, 0), (0, more)), constant_values=1), np.pad(mask, ((0, 0), (0, more)))
    with torch.no_grad():
        expected = torch.stack(model(torch.from_numpy(ids), torch.from_numpy(mask)).exit_logits, dim=1)
    np.testing.assert_allclose(exact.run(*padded).logits, expected.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(quantised.run(*padded).logits, quantised.run(ids, mask).logits, atol=1e-6)


def test_the_biases_matter(both):
    model, exact, _ = both
    without = type(model)(model.config).eval()
    without.load_state_dict(model.state_dict())
    with torch.no_grad():
        for layer in without.layers:
            layer.attention.self.relative_bias.weight.zero_()
        ids = torch.randint(3, 50, (1, 20), generator=torch.Generator().manual_seed(0))
        expected = torch.stack(without(ids).exit_logits, dim=1).numpy()
    found = exact.run(ids.numpy(), np.ones((1, 20), np.int64)).logits
    assert np.abs(found - expected).max(axis=(0, 2)).min() > 1e-3
