"""Stitching the stages of a model into one graph: with early exits, or straight through.

Either way every stage becomes a function of the model, with its weights as constants, and the graph calls it.
ONNX Runtime inlines a function where it is called, so the weights end up in the branch that uses them, where
they are packed once (those of an outer graph are packed anew at every run). Written into the nested branches
themselves they would also be packed once, but copied at every level when the model is loaded.

The table of word embeddings is the graph's, which passes it to the first stage. Nothing packs it, and it can
be most of the file: ONNX Runtime inlines 1 GiB at most, unless a session asks for more.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import ArrayLike
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
from onnx.inliner import inline_local_functions

from pipeops import __version__
from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.onnx.stages import WORDS_TABLE, make_model, tensor, token_inputs
from pipeops.settings import Confidence

GraphKind = Literal["early-exit", "straight"]
DOMAIN = "pipeops"
RESULTS = ("logits", "exit_layer")
Score = Literal["stage", "entropy", "patience"]
"""What thresholds are compared with: the confidence that the stage computes, or one from its logits."""
# Protocol Buffers read messages nested up to 100 deep; each If takes three levels, what it holds the rest.
MAX_EXITS = 32


class _Interface(NamedTuple):
    """What the graph must know of a stage to call it."""

    name: str
    inputs: list[str]
    outputs: list[ValueInfoProto]


def early_exit_graph(
    stages: Sequence[ModelProto], shape: ModelShape, *, confidence: Confidence = "max_probability"
) -> ModelProto:
    """Stitch the stages so that a layer which is not needed is not run: what follows an exit is in its If.

    Inputs ``input_ids`` and ``attention_mask``, int64 (1, length), and, where the model has an exit before
    its last layer, ``thresholds``, float32 (exits - 1,). An input leaves at the first exit whose
    confidence is at least its threshold: at 0 always, above 1 never. Outputs ``logits``, float32
    (1, num_labels), and ``exit_layer``, int64 (1,), counted from 1.

    With ``patience`` thresholds are numbers of exits: an input leaves at the first exit at which that many in
    a row, this one included, answer the same class. Zhou et al. 2020 (PABEE) count how often an answer is
    confirmed, one less. At 1 an input always leaves at the first exit.

    Args:
        stages: as ``emit_stages`` makes them, with the same ``confidence`` where it is not ``patience``.
        shape: the model's.
        confidence: what thresholds are compared with; the metadata of the graph say so.

    Raises:
        PipeOpsError: more exits than a file can nest.
    """
    if (exits := len(shape.exit_layers)) > MAX_EXITS:
        raise PipeOpsError(
            f"exit_layers: {exits} exits, but a graph nests at most {MAX_EXITS}; use fewer layers"
        )
    model = _model("early-exit", stages, shape, confidence=confidence)
    calls = [_interface(stage) for stage in stages]
    _stitch_early_exits(model, calls, shape, "patience" if confidence == "patience" else "stage")
    return model


def load(path: Path) -> ModelProto:
    """Parse a graph with its weights in it. A foreign one that names other files is refused, none opened.

    Raises:
        ValueError: it names other files.
    """
    model = onnx.load(path, load_external_data=False)
    functions = [node for function in model.functions for node in function.node]
    for found in (*model.graph.initializer, *_tensors(model.graph.node), *_tensors(functions)):
        if found.data_location == TensorProto.EXTERNAL or found.external_data:
            raise ValueError("it keeps weights in other files")
    return model


def _tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    """The tensors of nodes and of the graphs within them."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from (*graph.initializer, *_tensors(graph.node))


def with_confidence(model: ModelProto, confidence: Confidence) -> ModelProto:
    """Return an exported graph with early exits that decides by another confidence, without its checkpoint.

    Args:
        model: as :func:`early_exit_graph` makes it with ``max_probability``; it is not changed.
        confidence: what its thresholds are compared with.

    Raises:
        PipeOpsError: it is no such graph.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    kind, made_with = (metadata.get(f"pipeops.{key}", "unknown") for key in ("graph", "confidence"))
    if (kind, made_with) != ("early-exit", "max_probability"):
        raise PipeOpsError(
            f"a graph of kind {kind!r} with confidence {made_with!r}, where one with early exits and "
            "max_probability is needed; export the model again"
        )
    shape = ModelShape.from_config(json.loads(metadata["pipeops.shape"]))
    if confidence == "max_probability" or not shape.has_exits:
        return model
    changed = _model("early-exit", [], shape, confidence=confidence)
    _take_stages(changed, model)
    _stitch_early_exits(changed, _calls(model), shape, "entropy" if confidence == "entropy" else "patience")
    return changed


def straightened(model: ModelProto) -> ModelProto:
    """Return the profiling graph (:func:`straight_graph`) of an exported graph with early exits.

    Args:
        model: as :func:`early_exit_graph` makes it, with any confidence; it is not changed.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    shape = ModelShape.from_config(json.loads(metadata["pipeops.shape"]))
    straight = _model("straight", [], shape)
    _take_stages(straight, model)
    _stitch_straight(straight, _calls(model), shape)
    return straight


def inlined(model: ModelProto) -> ModelProto:
    """Return a graph of this module without functions: what they hold stands where they are called.

    Runtimes that know no functions can read it. ONNX Runtime loads it far slower.
    """
    return inline_local_functions(model)


def with_metadata(model: ModelProto, added: Mapping[str, str]) -> ModelProto:
    """Return the model itself, with these entries of its metadata, whatever it said of them before."""
    metadata = {entry.key: entry.value for entry in model.metadata_props} | dict(added)
    helper.set_model_props(model, metadata)
    return model


def _calls(model: ModelProto) -> list[_Interface]:
    """The stages of an exported graph, which are its functions.

    Raises:
        PipeOpsError: it has none.
    """
    if not model.functions:
        raise PipeOpsError("a graph without functions; export the model again, without --inline")
    types = {value.name: value for graph in _nested(model.graph) for value in graph.value_info}
    return [
        _Interface(function.name, list(function.input), [types[name] for name in function.output])
        for function in model.functions
    ]


def _stitch_early_exits(
    model: ModelProto, calls: Sequence[_Interface], shape: ModelShape, score: Score
) -> None:
    """Fill the model's empty graph with calls of its functions, one per layer."""
    model.graph.input.extend(token_inputs(1))
    if shape.has_exits:
        model.graph.input.append(tensor("thresholds", TensorProto.FLOAT, len(shape.exit_layers) - 1))
    graph = model.graph
    for layer, call in enumerate(calls, start=1):
        _call(graph, call)
        if layer in shape.exit_layers[:-1]:
            graph = _branch(graph, layer, shape, _score(graph, layer, shape, score))
    _answer(graph, shape.num_layers, shape)


def straight_graph(stages: Sequence[ModelProto], shape: ModelShape) -> ModelProto:
    """Stitch the stages one after another, for profiling: every exit's answer, for a whole batch in one run.

    Inputs ``input_ids`` and ``attention_mask``, int64 (batch, length). Outputs ``logits``, float32
    (batch, exits, num_labels), and ``confidence``, float32 (batch, exits).
    """
    model = _model("straight", stages, shape)
    _stitch_straight(model, [_interface(stage) for stage in stages], shape)
    return model


def _stitch_straight(model: ModelProto, calls: Sequence[_Interface], shape: ModelShape) -> None:
    """Fill the model's empty graph with calls of its functions, and join what the exits answer."""
    graph, exits = model.graph, len(shape.exit_layers)
    graph.input.extend(token_inputs("batch"))
    graph.output.append(tensor("logits", TensorProto.FLOAT, "batch", exits, shape.num_labels))
    graph.output.append(tensor("confidence", TensorProto.FLOAT, "batch", exits))
    for call in calls:
        _call(graph, call)
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "exits.axis"))
    for output in ("logits", "confidence"):
        rows = []
        for layer in shape.exit_layers:
            rows.append(f"{output}.{layer}.row")
            graph.node.append(_node("Unsqueeze", [f"{output}.{layer}", "exits.axis"], rows[-1]))
        graph.node.append(_node("Concat", rows, output, axis=1))


def _model(kind: GraphKind, stages: Sequence[ModelProto], shape: ModelShape, **metadata: str) -> ModelProto:
    """Start a model with the stages as its functions and an empty graph."""
    model = make_model(GraphProto(name=kind))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    metadata |= {"graph": kind, "shape": json.dumps(shape.to_config()), "version": __version__}
    helper.set_model_props(model, {f"pipeops.{key}": value for key, value in metadata.items()})
    for stage in stages:
        _add_function(model, stage)
    return model


def _add_function(model: ModelProto, stage: ModelProto) -> None:
    """Add a stage to the functions of the model, in place: every further copy of the weights costs memory."""
    function = model.functions.add(domain=DOMAIN, name=stage.graph.name, opset_import=stage.opset_import)
    function.input.extend(_interface(stage).inputs)
    function.output.extend(value.name for value in stage.graph.output)
    for weight in stage.graph.initializer:
        if _is_of_words(weight):
            model.graph.initializer.append(weight)
            continue
        constant = function.node.add(op_type="Constant", name=weight.name, output=[weight.name])
        constant.attribute.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(weight)
    function.node.extend(stage.graph.node)


def _take_stages(model: ModelProto, source: ModelProto) -> None:
    """Give the model the stages of another, and what they take of its graph."""
    model.functions.extend(source.functions)
    model.graph.initializer.extend(filter(_is_of_words, source.graph.initializer))


def _is_of_words(weight: TensorProto) -> bool:
    """Whether it is the table of word embeddings; in int8 its scale and zero point are too."""
    return weight.name.startswith(WORDS_TABLE)


def _interface(stage: ModelProto) -> _Interface:
    held = filter(_is_of_words, stage.graph.initializer)
    inputs = [value.name for value in (*stage.graph.input, *held)]
    return _Interface(stage.graph.name, inputs, list(stage.graph.output))


def _call(graph: GraphProto, stage: _Interface) -> None:
    """Append a call of the stage's function, and the types that ONNX cannot infer through it."""
    outputs = [value.name for value in stage.outputs]
    graph.node.append(helper.make_node(stage.name, stage.inputs, outputs, name=stage.name, domain=DOMAIN))
    graph.value_info.extend(stage.outputs)


def _node(op: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def _score(graph: GraphProto, layer: int, shape: ModelShape, score: Score) -> str:
    """Append what the threshold of the exit after ``layer`` is compared with, (1,); return its name."""
    name, logits = f"exit.{layer}", f"logits.{layer}"
    if score == "entropy":  # exp(-entropy), as the stage would compute it
        axis, one = _constant(graph, f"{name}.axes", [-1]), _constant(graph, f"{name}.most", np.float32(1))
        graph.node.extend(
            [
                _node("Softmax", [logits], f"{name}.shares", axis=-1),
                _node("LogSoftmax", [logits], f"{name}.log_shares", axis=-1),
                _node("Mul", [f"{name}.shares", f"{name}.log_shares"], f"{name}.terms"),
                _node("ReduceSum", [f"{name}.terms", axis], f"{name}.negative", keepdims=0),
                _node("Exp", [f"{name}.negative"], f"{name}.exp"),
                _node("Min", [f"{name}.exp", one], f"{name}.by_entropy"),
            ]
        )
        return f"{name}.by_entropy"
    if score == "patience":
        one = _constant(graph, f"{name}.one_exit", np.ones(1, np.float32))
        graph.node.append(_node("ArgMax", [logits], f"{name}.class", axis=-1, keepdims=0))
        if layer == shape.exit_layers[0]:
            graph.node.append(_node("Identity", [one], f"{name}.agreeing"))
            return f"{name}.agreeing"
        before = f"exit.{shape.exit_layers[shape.exit_layers.index(layer) - 1]}"
        graph.node.extend(
            [
                _node("Equal", [f"{name}.class", f"{before}.class"], f"{name}.confirmed"),
                _node("Add", [f"{before}.agreeing", one], f"{name}.longer"),
                _node("Where", [f"{name}.confirmed", f"{name}.longer", one], f"{name}.agreeing"),
            ]
        )
        return f"{name}.agreeing"
    return f"confidence.{layer}"


def _constant(graph: GraphProto, name: str, value: ArrayLike) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _branch(graph: GraphProto, layer: int, shape: ModelShape, score: str) -> GraphProto:
    """End ``graph`` by leaving after ``layer``, if ``score`` reaches its threshold, or going on.

    Returns:
        The graph to go on in.
    """
    name = f"exit.{layer}"
    index = _constant(graph, f"{name}.index", [shape.exit_layers.index(layer)])
    graph.node.append(_node("Gather", ["thresholds", index], f"{name}.threshold"))
    graph.node.append(_node("GreaterOrEqual", [score, f"{name}.threshold"], f"{name}.sure"))
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


def _nested(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and, outside in, every branch within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nested(attribute.g)
