"""A model with early exits on OpenVINO: cut into stages, or the stages nested in one graph by ``If``.

Both are cut from one model of all exits after it was quantised, so they have its scales. A stage is a layer
with its exit; the first also embeds the tokens. The state between two stages is not copied.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IDS, MASK, HIDDEN, THRESHOLDS = "input_ids", "attention_mask", "hidden", "thresholds"


def name_tensors(model: Any, layers: int) -> None:
    """Name a converted model's inputs, and its outputs: logits of exit after exit, then layer after layer."""
    for given, name in zip(model.inputs, (IDS, MASK), strict=True):
        given.get_tensor().set_names({name})
    numbers = range(1, layers + 1)
    names = [*(f"logits.{k}" for k in numbers), *(f"{HIDDEN}.{k}" for k in numbers[:-1])]
    for made, name in zip(model.outputs, names, strict=True):
        made.get_tensor().add_names({name})


def stage(model: Any, layer: int, layers: int) -> Any:
    """Cut out one layer and its exit.

    Returns:
        A model from the ids (first layer) or the state before, and the mask, to logits, confidence and the
        state after (not of the last layer).
    """
    import openvino
    from openvino import opset13 as ops

    parameters, found = _cut(model, layer)
    results = [found[f"logits.{layer}"], _confidence(found[f"logits.{layer}"])]
    if layer < layers:
        results.append(found[f"{HIDDEN}.{layer}"])
    return openvino.Model([ops.result(value) for value in results], parameters, f"stage.{layer}")


def nested(model: Any, layers: int, layer: int = 1) -> Any:
    """All stages from one on in a model, each in the branch that is taken by what did not leave before it.

    Returns:
        A model that also takes ``thresholds``, (layers - 1,), and answers logits and the layer of the exit.
    """
    import openvino
    from openvino import opset13 as ops

    parameters, found = _cut(model, layer)
    thresholds = _parameter([layers - 1], THRESHOLDS)
    logits = found[f"logits.{layer}"]
    if layer == layers:
        outputs = [logits, ops.constant(np.array([layer])).output(0)]
    else:
        threshold = ops.gather(thresholds, ops.constant(np.array([layer - 1])), ops.constant(0))
        sure = ops.greater_equal(_confidence(logits), threshold)
        choice = ops.if_op(ops.reshape(sure, ops.constant(np.array([1])), False).output(0))
        answer = _parameter(logits.get_partial_shape(), "answer")
        leave = openvino.Model(
            [ops.result(answer), ops.result(ops.constant(np.array([layer])))], [answer], f"leave.{layer}"
        )
        go_on = nested(model, layers, layer + 1)
        choice.set_then_body(leave)
        choice.set_else_body(go_on)
        choice.set_input(logits, answer, None)
        given = {MASK: _named(parameters, MASK).output(0), THRESHOLDS: thresholds.output(0)}
        given[HIDDEN] = found[f"{HIDDEN}.{layer}"]
        for name, value in given.items():
            choice.set_input(value, None, _named(go_on.get_parameters(), name))
        outputs = [
            choice.set_output(*pair) for pair in zip(leave.get_results(), go_on.get_results(), strict=True)
        ]
    results = [ops.result(value) for value in outputs]
    return openvino.Model(results, [*parameters, thresholds], f"from.{layer}")


class Stages:
    """Stages compiled one by one; exits are decided between them."""

    def __init__(self, core: Any, paths: Sequence[Path], settings: Mapping[str, Any]) -> None:
        self._requests = [core.compile_model(path, "CPU", settings).create_infer_request() for path in paths]

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], thresholds: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Logits of the first exit that is sure enough."""
        import openvino

        given, masked = (openvino.Tensor(values, shared_memory=True) for values in (ids, mask))
        for index, request in enumerate(self._requests):
            request.set_input_tensor(0, given)
            request.set_input_tensor(1, masked)
            request.infer(share_outputs=True)
            last = index == len(thresholds)
            if last or request.get_output_tensor(1).data[0] >= thresholds[index]:
                break
            given = request.get_output_tensor(2)
        return request.get_output_tensor(0).data.copy()


def _cut(model: Any, layer: int) -> tuple[list[Any], dict[str, Any]]:
    """Let a copy of the model begin with a layer; its inputs, and its outputs by name."""
    copy = model.clone()
    found = {name: value.get_node().input_value(0) for value in copy.outputs for name in value.names}
    parameters = list(copy.get_parameters())
    if layer > 1:
        before = found[f"{HIDDEN}.{layer - 1}"]
        width = before.get_partial_shape()
        state = _parameter(width, HIDDEN)
        for target in before.get_target_inputs():
            target.replace_source_output(state.output(0))
        # Shapes come from the state too: no stage should embed the tokens to learn how many there are.
        for node in copy.get_ordered_ops():
            if node.get_type_name() == "ShapeOf" and node.input_value(0).get_partial_shape() == width:
                node.input(0).replace_source_output(state.output(0))
        parameters = [state, _named(parameters, MASK)]
    return parameters, found


def _confidence(logits: Any) -> Any:
    from openvino import opset13 as ops

    return ops.reduce_max(ops.softmax(logits, 1), ops.constant(np.array([1])), False).output(0)


def _parameter(shape: Any, name: str) -> Any:
    from openvino import opset13 as ops

    parameter = ops.parameter(shape, np.float32, name=name)
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def _named(parameters: Sequence[Any], name: str) -> Any:
    return next(one for one in parameters if name in one.output(0).names)
