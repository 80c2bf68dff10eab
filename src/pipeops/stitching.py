"""Stitching the stages of a model into one graph: with early exits, or straight through."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from pipeops import __version__
from pipeops.emission import IR_VERSION, OPSETS, tensor
from pipeops.errors import PipeOpsError
from pipeops.shape import ModelShape

GraphKind = Literal["early-exit", "straight"]
# Protocol Buffers read messages nested 100 deep; an If takes three levels, and six are left for what it holds.
MAX_EXITS = 32


def early_exit_graph(stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Stitch the stages so that a layer which is not needed is not run.

    Inputs ``input_ids`` and ``attention_mask``, int64 (1, length), and, where the model has an exit before its
    last layer, ``thresholds``, float32 (exits - 1,). An input leaves at the first exit whose largest probability
    is at least its threshold: at 0 always, above 1 never. Outputs ``logits``, float32 (1, num_labels), and
    ``exit_layer``, int64 (1,), counted from 1.

    Raises:
        PipeOpsError: more exits than a file can nest.
    """
    if len(shape.exit_layers) > MAX_EXITS:
        raise PipeOpsError(
            f"exit_layers: {len(shape.exit_layers)} exits, but a graph can nest at most {MAX_EXITS}; train with fewer"
        )
    model = _model("early-exit", shape)
    model.graph.input.extend(_token_inputs(1))
    if shape.has_exits:
        model.graph.input.append(tensor("thresholds", TensorProto.FLOAT, len(shape.exit_layers) - 1))
    _nest(model.graph, stages, first_layer=1, shape=shape, results=["logits", "exit_layer"])
    return model


def straight_graph(stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Stitch the stages one after another, for profiling: every exit's answer in one run, for a whole batch.

    Inputs ``input_ids`` and ``attention_mask``, int64 (batch, length). Outputs ``logits``, float32 (batch, exits,
    num_labels), and ``confidence``, float32 (batch, exits), the largest probability.
    """
    exits = len(shape.exit_layers)
    model = _model("straight", shape)
    graph = model.graph
    graph.input.extend(_token_inputs("batch"))
    graph.output.append(tensor("logits", TensorProto.FLOAT, "batch", exits, shape.num_labels))
    graph.output.append(tensor("confidence", TensorProto.FLOAT, "batch", exits))
    for stage in stages:
        _append(graph, stage)
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "exits.axis"))
    for output in ("logits", "confidence"):
        rows = []
        for layer in shape.exit_layers:
            rows.append(f"{output}.{layer}.row")
            graph.node.append(_node("Unsqueeze", [f"{output}.{layer}", "exits.axis"], rows[-1]))
        graph.node.append(_node("Concat", rows, output, axis=1))
    return model


def _model(kind: GraphKind, shape: ModelShape) -> ModelProto:
    graph = GraphProto(name=kind)
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="pipeops")
    metadata = {
        "pipeops.graph": kind,
        "pipeops.shape": json.dumps(asdict(shape)),
        "pipeops.version": __version__,
    }
    helper.set_model_props(model, metadata)
    return model


def _token_inputs(batch: int | str) -> list[ValueInfoProto]:
    return [tensor(name, TensorProto.INT64, batch, "length") for name in ("input_ids", "attention_mask")]


def _node(op: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def _append(graph: GraphProto, stage: ModelProto) -> None:
    graph.node.extend(stage.graph.node)
    graph.initializer.extend(stage.graph.initializer)


def _nest(
    graph: GraphProto,
    stages: Sequence[ModelProto],
    *,
    first_layer: int,
    shape: ModelShape,
    results: list[str],
) -> None:
    """Fill ``graph`` with stages up to the first exit, and nest what follows in its If.

    Each branch holds the weights that it uses: ONNX Runtime packs a branch's own weights once, but those of an
    outer graph anew at every run. Branches are filled in place, since a finished one could only be copied in.
    """
    layer = next(layer for layer in shape.exit_layers if layer >= first_layer)
    for stage in stages[: layer - first_layer + 1]:
        _append(graph, stage)
    if layer == shape.num_layers:
        return _leave(graph, layer, shape, results)
    index = f"exit.{layer}.threshold.index"
    graph.initializer.append(numpy_helper.from_array(np.array([shape.exit_layers.index(layer)]), index))
    graph.node.append(_node("Gather", ["thresholds", index], f"exit.{layer}.threshold"))
    sure = f"exit.{layer}.sure"
    graph.node.append(_node("GreaterOrEqual", [f"confidence.{layer}", f"exit.{layer}.threshold"], sure))
    choice = graph.node.add(op_type="If", name=f"exit.{layer}", input=[sure], output=results)
    _declare(graph, results, shape)
    leave = choice.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
    leave.name = f"exit.{layer}.leave"
    _leave(leave, layer, shape, [f"{leave.name}.{result}" for result in ("logits", "exit_layer")])
    carry_on = choice.attribute.add(name="else_branch", type=AttributeProto.GRAPH).g
    carry_on.name = f"exit.{layer}.continue"
    names = [f"{carry_on.name}.{result}" for result in ("logits", "exit_layer")]
    rest = stages[layer - first_layer + 1 :]
    return _nest(carry_on, rest, first_layer=layer + 1, shape=shape, results=names)


def _leave(graph: GraphProto, layer: int, shape: ModelShape, results: list[str]) -> None:
    """Answer with the logits of the exit after ``layer``."""
    logits, exit_layer = results
    graph.node.append(_node("Identity", [f"logits.{layer}"], logits))
    graph.node.append(_node("Constant", [], exit_layer, value_ints=[layer]))
    _declare(graph, results, shape)


def _declare(graph: GraphProto, results: list[str], shape: ModelShape) -> None:
    logits, exit_layer = results
    graph.output.append(tensor(logits, TensorProto.FLOAT, 1, shape.num_labels))
    graph.output.append(tensor(exit_layer, TensorProto.INT64, 1))
