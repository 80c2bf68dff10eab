"""What is compiled: two graphs, so that the CPU starts them at once and not in pieces."""

import pytest
import torch
from helpers import DISTINCT, tiny_batch, tiny_model

from pipeops.training.stages import run_once


@pytest.mark.parametrize("exits", [False, True])
@pytest.mark.parametrize("family", DISTINCT)
def test_a_model_that_was_run_once_compiles_to_its_encoder_and_its_exits(family, exits):
    model, graphs = tiny_model(family, exits=exits), []

    def counted(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    run_once(model)
    model.train()
    compiled = torch.compile(model, backend=counted)
    for _ in range(2):
        compiled(**tiny_batch())
    assert len(graphs) == 2


def test_exits_that_a_loss_leaves_out_have_no_gradient():
    """With zeros in place of none, weight decay would shrink them while hidden states alone are learned."""
    model = tiny_model(exits=True)
    torch.compiler.reset()
    run_once(model)
    output = torch.compile(model.train(), backend="aot_eager")(**tiny_batch())
    sum(states.square().mean() for states in output.hidden_states).backward()
    assert all(weight.grad is None for weight in model.exits.parameters())
    assert all(weight.grad is not None for weight in model.layers.parameters())
