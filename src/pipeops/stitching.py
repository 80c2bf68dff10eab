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
    helper,
    numpy_helper,
)

from pipeops import __version__
from pipeops.emission import make_model, tensor, token_inputs
from pipeops.errors import PipeOpsError
from pipeops.shape import ModelShape

RESULTS = ["logits", "exit_layer"]
GraphKind = Literal["early-exit", "straight"]
# Protocol Buffers read messages nested up to 100 deep; each If takes three levels, what it holds the rest.
MAX_EXITS = 32


def early_exit_graph(stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Stitch the stages so that a layer which is not needed is not run.

    Inputs ``input_ids`` and ``attention_mask``, int64 (1, length), and, where the model has an exit before
    its last layer, ``thresholds``, float32 (exits - 1,). An input leaves at the first exit whose largest
    probability is at least its threshold: at 0 always, above 1 never. Outputs ``logits``, float32
    (1, num_labels), and ``exit_layer``, int64 (1,), counted from 1.

    Raises:
        PipeOpsError: more exits than a file can nest.
    """
    if len(shape.exit_layers) > MAX_EXITS:
        raise PipeOpsError(
            f"exit_layers: {len(shape.exit_layers)} exits, a graph nests at most {MAX_EXITS}; use fewer layers"
        )
    model = _model("early-exit", shape)
    model.graph.input.extend(token_inputs(1))
    if shape.has_exits:
        model.graph.input.append(tensor("thresholds", TensorProto.FLOAT, len(shape.exit_layers) - 1))
    graph, results = model.graph, RESULTS
    for layer, stage in enumerate(stages, start=1):
        _append(graph, stage)
        if layer in shape.exit_layers[:-1]:
            graph, results = _branch(graph, layer, shape, results)
    _answer(graph, shape.num_layers, shape, results)
    return model


def straight_graph(stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Stitch the stages one after another, for profiling: every exit's answer, for a whole batch in one run.

    Inputs ``input_ids`` and ``attention_mask``, int64 (batch, length). Outputs ``logits``, float32
    (batch, exits, num_labels), and ``confidence``, float32 (batch, exits), the largest probability.
    """
    exits = len(shape.exit_layers)
    model = _model("straight", shape)
    graph = model.graph
    graph.input.extend(token_inputs("batch"))
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
    model = make_model(GraphProto(name=kind))
    metadata = {
        "pipeops.graph": kind,
        "pipeops.shape": json.dumps(asdict(shape)),
        "pipeops.version": __version__,
    }
    helper.set_model_props(model, metadata)
    return model


def _node(op: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def _append(graph: GraphProto, stage: ModelProto) -> None:
    graph.node.extend(stage.graph.node)
    graph.initializer.extend(stage.graph.initializer)


def _branch(
    graph: GraphProto, layer: int, shape: ModelShape, results: list[str]
) -> tuple[GraphProto, list[str]]:
    """End ``graph`` by leaving after ``layer`` or going on; return the graph to go on in and its outputs.

    What goes on holds the weights that it uses: ONNX Runtime packs a branch's own weights once, but those of
    an outer graph anew at every run. It is filled in place, since a finished graph could only be copied in.
    """
    name = f"exit.{layer}"
    index = numpy_helper.from_array(np.array([shape.exit_layers.index(layer)]), f"{name}.threshold.index")
    graph.initializer.append(index)
    graph.node.append(_node("Gather", ["thresholds", index.name], f"{name}.threshold"))
    graph.node.append(_node("GreaterOrEqual", [f"confidence.{layer}", f"{name}.threshold"], f"{name}.sure"))
    choice = graph.node.add(op_type="If", name=name, input=[f"{name}.sure"], output=results)
    _declare(graph, shape, results)
    leave, go_on = (
        choice.attribute.add(name=n, type=AttributeProto.GRAPH).g for n in ("then_branch", "else_branch")
    )
    leave.name, go_on.name = f"{name}.leave", f"{name}.go_on"
    _answer(leave, layer, shape, [f"{leave.name}.{result}" for result in RESULTS])
    return go_on, [f"{go_on.name}.{result}" for result in RESULTS]


def _answer(graph: GraphProto, layer: int, shape: ModelShape, results: list[str]) -> None:
    """End ``graph`` with the answer of the exit after ``layer``."""
    logits, exit_layer = results
    graph.node.append(_node("Identity", [f"logits.{layer}"], logits))
    graph.node.append(_node("Constant", [], exit_layer, value_ints=[layer]))
    _declare(graph, shape, results)


def _declare(graph: GraphProto, shape: ModelShape, results: list[str]) -> None:
    logits, exit_layer = results
    graph.output.append(tensor(logits, TensorProto.FLOAT, 1, shape.num_labels))
    graph.output.append(tensor(exit_layer, TensorProto.INT64, 1))
