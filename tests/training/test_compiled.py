"""What is compiled: one graph, so that the CPU starts it at once and not in pieces."""

import pytest
import torch
from helpers import DISTINCT, tiny_batch, tiny_model

from pipeops.training.stages import run_once


@pytest.mark.parametrize("exits", [False, True])
@pytest.mark.parametrize("family", DISTINCT)
def test_a_model_that_was_run_once_compiles_to_one_graph(family, exits):
    model, graphs = tiny_model(family, exits=exits), []

    def counted(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    run_once(model)
    model.train()
    compiled = torch.compile(model, backend=counted, fullgraph=True)
    for _ in range(2):
        compiled(**tiny_batch())
    assert len(graphs) == 1
