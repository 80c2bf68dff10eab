"""Stages that OpenVINO runs, one by one or nested in a graph, answer what the model does."""

import numpy as np
import openvino_stages
import pytest
import torch
from helpers import tiny_model

from pipeops.onnx.runtime import force_exit

openvino = pytest.importorskip("openvino", reason="pip install -r benchmarks/engines-requirements.txt")

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


class Exits(torch.nn.Module):
    """Logits of exit after exit, then the states after all layers but the last."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        found = self.model(input_ids, attention_mask)
        return *found.exit_logits, *found.hidden_states[1:-1]


def test_both_forms_leave_where_they_should_and_answer_as_the_model(tmp_path):
    exits = Exits(tiny_model("bert", exits=True)).eval()
    layers = exits.model.shape.exit_layers
    ids, mask = torch.full((2, 9), 5), torch.ones((2, 9), dtype=torch.long)
    mask[1, 6:] = 0
    model = openvino.convert_model(exits, example_input=(ids, mask))
    openvino_stages.name_tensors(model, len(layers))
    paths = [tmp_path / f"{layer}.xml" for layer in layers]
    for layer, path in zip(layers, paths, strict=True):
        openvino.save_model(openvino_stages.stage(model, layer, len(layers)), path, compress_to_fp16=False)
    core = openvino.Core()
    staged = openvino_stages.Stages(core, paths, SETTINGS)
    graph = core.compile_model(openvino_stages.nested(model, len(layers)), "CPU", SETTINGS)
    rng = np.random.default_rng(0)
    for length in (7, 12, 7):
        ids = rng.integers(5, 20, (1, length))
        mask = np.ones_like(ids)
        with torch.inference_mode():
            wanted = exits(torch.from_numpy(ids), torch.from_numpy(mask))
        for layer in layers:
            thresholds = force_exit(layer, layers)
            logits, exit_layer = graph([ids, mask, thresholds]).values()
            assert exit_layer[0] == layer
            for found in (logits, staged.run(ids, mask, thresholds)):
                np.testing.assert_allclose(found, wanted[layer - 1].numpy(), atol=1e-5)
