"""Stitching the stages of a model into one graph: with early exits, or straight through.

Either way every stage becomes a function of the model, with its weights as constants, and the graph calls it.
ONNX Runtime inlines a function where it is called, so the weights end up in the branch that uses them, where
they are packed once (those of an outer graph are packed anew at every run). Written into the nested branches
themselves they would also be packed once, but copied at every level when the model is loaded.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pipeops import __version__
from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.onnx.stages import make_model, tensor, token_inputs

GraphKind = Literal["early-exit", "straight"]
DOMAIN = "pipeops"
RESULTS = ("logits", "exit_layer")
# Protocol Buffers read messages nested up to 100 deep; each If takes three levels, what it holds the rest.
MAX_EXITS = 32


def early_exit_graph(stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Stitch the stages so that a layer which is not needed is not run: what follows an exit is in its If.

    Inputs ``input_ids`` and ``attention_mask``, int64 (1, length), and, where the model has an exit before
    its last layer, ``thresholds``, float32 (exits - 1,). An input leaves at the first exit whose
    confidence is at least its threshold: at 0 always, above 1 never. Outputs ``logits``, float32
    (1, num_labels), and ``exit_layer``, int64 (1,), counted from 1.

    Raises:
        PipeOpsError: more exits than a file can nest.
    """
    if (exits := len(shape.exit_layers)) > MAX_EXITS:
        raise PipeOpsError(
            f"exit_layers: {exits} exits, but a graph nests at most {MAX_EXITS}; use fewer layers"
        )
    model = _model("early-exit", stages, shape)
    model.graph.input.extend(token_inputs(1))
    if shape.has_exits:
        model.graph.input.append(tensor("thresholds", TensorProto.FLOAT, exits - 1))
    graph = model.graph
    for layer, stage in enumerate(stages, start=1):
        _call(graph, stage)
        if layer in shape.exit_layers[:-1]:
            graph = _branch(graph, layer, shape)
    _answer(graph, shape.num_layers, shape)
    return model


def straight_graph(stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Stitch the stages one after another, for profiling: every exit's answer, for a whole batch in one run.

    Inputs ``input_ids`` and ``attention_mask``, int64 (batch, length). Outputs ``logits``, float32
    (batch, exits, num_labels), and ``confidence``, float32 (batch, exits).
    """
    exits = len(shape.exit_layers)
    model = _model("straight", stages, shape)
    graph = model.graph
    graph.input.extend(token_inputs("batch"))
    graph.output.append(tensor("logits", TensorProto.FLOAT, "batch", exits, shape.num_labels))
    graph.output.append(tensor("confidence", TensorProto.FLOAT, "batch", exits))
    for stage in stages:
        _call(graph, stage)
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "exits.axis"))
    for output in ("logits", "confidence"):
        rows = []
        for layer in shape.exit_layers:
            rows.append(f"{output}.{layer}.row")
            graph.node.append(_node("Unsqueeze", [f"{output}.{layer}", "exits.axis"], rows[-1]))
        graph.node.append(_node("Concat", rows, output, axis=1))
    return model


def _model(kind: GraphKind, stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Start a model with the stages as its functions and an empty graph."""
    model = make_model(GraphProto(name=kind))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    metadata = {"graph": kind, "shape": json.dumps(asdict(shape)), "version": __version__}
    helper.set_model_props(model, {f"pipeops.{key}": value for key, value in metadata.items()})
    for stage in stages:
        _add_function(model, stage)
    return model


def _add_function(model: ModelProto, stage: ModelProto) -> None:
    """Add a stage to the functions of the model, in place: every further copy of the weights costs memory."""
    function = model.functions.add(domain=DOMAIN, name=stage.graph.name, opset_import=stage.opset_import)
    function.input.extend(value.name for value in stage.graph.input)
    function.output.extend(value.name for value in stage.graph.output)
    for weight in stage.graph.initializer:
        constant = function.node.add(op_type="Constant", name=weight.name, output=[weight.name])
        constant.attribute.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(weight)
    function.node.extend(stage.graph.node)


def _call(graph: GraphProto, stage: ModelProto) -> None:
    """Append a call of the stage's function, and the types that ONNX cannot infer through it."""
    name = stage.graph.name
    inputs, outputs = ([value.name for value in values] for values in (stage.graph.input, stage.graph.output))
    graph.node.append(helper.make_node(name, inputs, outputs, name=name, domain=DOMAIN))
    graph.value_info.extend(stage.graph.output)


def _node(op: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def _branch(graph: GraphProto, layer: int, shape: ModelShape) -> GraphProto:
    """End ``graph`` by leaving after ``layer`` or going on; return the graph to go on in."""
    name = f"exit.{layer}"
    index = numpy_helper.from_array(np.array([shape.exit_layers.index(layer)]), f"{name}.index")
    graph.initializer.append(index)
    graph.node.append(_node("Gather", ["thresholds", index.name], f"{name}.threshold"))
    graph.node.append(_node("GreaterOrEqual", [f"confidence.{layer}", f"{name}.threshold"], f"{name}.sure"))
    choice = graph.node.add(op_type="If", name=name, input=[f"{name}.sure"], output=_results(graph, shape))
    leave, go_on = (
        choice.attribute.add(name=branch, type=AttributeProto.GRAPH).g
        for branch in ("then_branch", "else_branch")
    )
    leave.name, go_on.name = f"{name}.leave", f"{name}.go_on"
    _answer(leave, layer, shape)
    return go_on


def _answer(graph: GraphProto, layer: int, shape: ModelShape) -> None:
    """End ``graph`` with the answer of the exit after ``layer``."""
    logits, exit_layer = _results(graph, shape)
    graph.node.append(_node("Identity", [f"logits.{layer}"], logits))
    graph.node.append(_node("Constant", [], exit_layer, value_ints=[layer]))


def _results(graph: GraphProto, shape: ModelShape) -> list[str]:
    """Declare the results as outputs of ``graph`` and return their names, which no other graph shares."""
    prefix = f"{graph.name}." if graph.name.startswith("exit.") else ""
    logits, exit_layer = (f"{prefix}{result}" for result in RESULTS)
    graph.output.append(tensor(logits, TensorProto.FLOAT, 1, shape.num_labels))
    graph.output.append(tensor(exit_layer, TensorProto.INT64, 1))
    return [logits, exit_layer]
