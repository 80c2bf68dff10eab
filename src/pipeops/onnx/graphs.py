"""Stitching the stages of a model into one graph: with early exits, or straight through.

Either way every stage becomes a function of the model, with its weights as constants, and the graph calls it.
ONNX Runtime inlines a function where it is called, so the weights end up in the branch that uses them, where
they are packed once (those of an outer graph are packed anew at every run). Written into the nested branches
themselves they would also be packed once, but copied at every level when the model is loaded.

The table of word embeddings is the graph's, which passes it to the first stage. Nothing packs it, and it can
be most of the file: ONNX Runtime inlines 1 GiB at most, unless a session asks for more.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
from pipeops.text import as_given

GraphKind = Literal["early-exit", "straight", "batch"]
DOMAIN = "pipeops"
RESULTS = ("logits", "exit_layer")
LARGE = 1024
"""Bytes of a weight from which on a second graph is better off without a copy."""
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
    (1, num_labels), and ``exit_layer``, int64 (1,), counted from 1. A model with a single exit takes any
    number of inputs, (batch, length).

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


def with_weights_in(model: ModelProto, path: Path) -> ModelProto:
    """Return the model itself, with its large weights left where they are already: in another graph's file.

    ONNX Runtime looks for that file beside the model's. Its SHA-256 stands in the metadata as
    ``pipeops.weights``: another file has other bytes where the weights are.

    Args:
        model: with the weights of that graph; whatever is not found there it keeps.
        path: of the graph.
    """
    held, place = path.read_bytes(), 0
    with_metadata(model, {"pipeops.weights": hashlib.sha256(held).hexdigest()})
    functions = [node for function in model.functions for node in function.node]
    for weight in (*model.graph.initializer, *_tensors(model.graph.node), *_tensors(functions)):
        size = len(weight.raw_data)
        if size < LARGE:
            continue
        # Both files have them in the same order, nearly always.
        found = held.find(weight.raw_data, place)
        place = found if found >= 0 else held.find(weight.raw_data)
        if place < 0:
            place = 0
            continue
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", path.name), ("offset", place), ("length", size)):
            weight.external_data.add(key=key, value=str(value))
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


def with_confidence(model: ModelProto, confidence: Confidence, *, path: Path) -> ModelProto:
    """Return an exported graph with early exits that decides by a confidence, without its checkpoint.

    Args:
        model: as :func:`early_exit_graph` makes it, with this confidence or ``max_probability``; it is not
            changed.
        confidence: what its thresholds are compared with.
        path: where it is, for the message.

    Raises:
        PipeOpsError: it is no such graph, or it decides by a third confidence.
    """
    metadata = metadata_of(model)
    if (kind := metadata.get("pipeops.graph", "unknown")) != "early-exit":
        raise PipeOpsError(
            f"{path}: a graph of kind {kind!r} where 'early-exit' is needed; export the model again"
        )
    shape = ModelShape.from_config(json.loads(metadata["pipeops.shape"]))
    made_with = metadata.get("pipeops.confidence", "max_probability")
    if made_with == confidence or not shape.has_exits:
        return model
    if made_with != "max_probability":
        raise PipeOpsError(
            f"{path}: decides by {made_with}, where exits.confidence is {confidence}; export the model again "
            f"without --confidence, or name a study with {made_with}"
        )
    changed = with_metadata(_model("early-exit", [], shape), metadata | {"pipeops.confidence": confidence})
    _take_stages(changed, model)
    _stitch_early_exits(changed, _calls(model), shape, "entropy" if confidence == "entropy" else "patience")
    return changed


def straightened(model: ModelProto) -> ModelProto:
    """Return the profiling graph (:func:`straight_graph`) of an exported graph with early exits.

    Args:
        model: as :func:`early_exit_graph` makes it, with any confidence; it is not changed.
    """
    metadata = metadata_of(model)
    shape = ModelShape.from_config(json.loads(metadata["pipeops.shape"]))
    straight = _model("straight", [], shape)
    _take_stages(straight, model)
    _stitch_straight(straight, _calls(model), shape)
    return straight


def batch_graph(model: ModelProto) -> ModelProto:
    """Return the graph of an exported one with early exits that takes any number of inputs at once.

    Inputs ``input_ids`` and ``attention_mask``, int64 (batch, length), and ``thresholds`` as before. Outputs
    ``logits``, float32 (batch, num_labels), and ``exit_layer``, int64 (batch,). After an exit the inputs that
    go on are brought together, so the layers that follow have fewer to compute.

    Args:
        model: as :func:`early_exit_graph` makes it, with any confidence; it is not changed.

    Raises:
        PipeOpsError: it is no such graph.
    """
    metadata = metadata_of(model)
    if (kind := metadata.get("pipeops.graph", "unknown")) != "early-exit":
        raise PipeOpsError(f"a graph of kind {kind!r} where 'early-exit' is needed; export the model again")
    shape = ModelShape.from_config(json.loads(metadata["pipeops.shape"]))
    confidence = metadata.get("pipeops.confidence", "max_probability")
    batch = _model("batch", [], shape)
    with_metadata(batch, metadata | {"pipeops.graph": "batch"})
    _take_stages(batch, model)
    graph = batch.graph
    graph.input.extend(token_inputs("batch"))
    score: Score = "stage" if confidence == "max_probability" else confidence
    _take_thresholds(graph, shape, score)
    results = _Batch(_calls(model), shape, score).fill(graph, 1, {})
    axis = _constant(graph, "exits.axis", [1])
    graph.node.append(_node("Squeeze", [results[0], axis], "logits"))
    graph.node.append(_node("Identity", [results[1]], "exit_layer"))
    graph.output.append(tensor("logits", TensorProto.FLOAT, "batch", shape.num_labels))
    graph.output.append(tensor("exit_layer", TensorProto.INT64, "batch"))
    return batch


class _Batch(NamedTuple):
    """Fills the nested graphs of a batch. Inputs that left are in none of the deeper ones."""

    calls: Sequence[_Interface]
    shape: ModelShape
    score: Score

    def fill(self, graph: GraphProto, first: int, known: Mapping[str, str]) -> list[str]:
        """Append what begins with layer ``first``; return the names of the results for all inputs here.

        Args:
            graph: where to append.
            first: layer, counted from 1.
            known: names here of what stages take, by the names that they give it.
        """
        here, rows = dict(known), f"batch.{first}"
        for layer in range(first, self.shape.num_layers + 1):
            call = self.calls[layer - 1]
            names = [value.name for value in call.outputs]
            inputs = [here.get(name, name) for name in call.inputs]
            graph.node.append(helper.make_node(call.name, inputs, names, name=call.name, domain=DOMAIN))
            graph.value_info.extend(_of_batch(value, rows) for value in call.outputs)
            here |= {name: name for name in names}
            if layer in self.shape.exit_layers[:-1]:
                return self._part(graph, layer, here)
        return [f"logits.{layer}", _layers(graph, layer, f"exit.{layer}.layers")]

    def _part(self, graph: GraphProto, layer: int, here: dict[str, str]) -> list[str]:
        """Append the exit after ``layer`` and all that follows it."""
        name = f"exit.{layer}"
        sure = _sure(graph, layer, _score(graph, layer, self.shape, self.score, here))
        graph.node.extend(
            [
                _node("Cast", [sure], f"{name}.counted", to=TensorProto.INT32),
                _node("ReduceMin", [f"{name}.counted"], f"{name}.least", keepdims=0),
                _node("Cast", [f"{name}.least"], f"{name}.all", to=TensorProto.BOOL),
            ]
        )
        leave, go_on = _choose(graph, name, f"{name}.all", [f"{name}.{result}" for result in RESULTS])
        for branch, results in ((leave, self._leave(leave, layer)), (go_on, self._go_on(go_on, layer, here))):
            branch.output.extend(_batch_results(f"{branch.name}.", f"{name}.batch", self.shape))
            for result, found in zip(branch.output, results, strict=True):
                branch.node.append(_node("Identity", [found], result.name))
        return [f"{name}.{result}" for result in RESULTS]

    def _leave(self, graph: GraphProto, layer: int) -> list[str]:
        return [f"logits.{layer}", _layers(graph, layer, f"exit.{layer}.left")]

    def _go_on(self, graph: GraphProto, layer: int, here: Mapping[str, str]) -> list[str]:
        """Run what follows on the inputs that are not sure, and put their answers where they were."""
        name, stay = f"exit.{layer}", f"exit.{layer}.stay"
        graph.node.append(_node("Not", [f"{name}.sure"], stay))
        known = dict(here)
        later = {given for call in self.calls[layer:] for given in call.inputs}
        for value in self._by_input(layer):
            if value in later or value.endswith((".class", ".agreeing")):
                known[value] = f"{name}.{value}"
                graph.node.append(_node("Compress", [here.get(value, value), stay], known[value], axis=0))
        logits, layers = self.fill(graph, layer + 1, known)
        here_layers = _layers(graph, layer, f"{name}.layers_here")
        graph.node.extend(
            [
                _node("NonZero", [stay], f"{name}.places"),
                _node("Transpose", [f"{name}.places"], f"{name}.rows"),
                _node("ScatterND", [f"logits.{layer}", f"{name}.rows", logits], f"{name}.all_logits"),
                _node("ScatterND", [here_layers, f"{name}.rows", layers], f"{name}.all_layers"),
            ]
        )
        return [f"{name}.all_logits", f"{name}.all_layers"]

    def _by_input(self, layer: int) -> list[str]:
        """Names of what was computed up to ``layer`` and has a row for each input."""
        found = [value for call in self.calls[:layer] for value in call.outputs]
        names = [v.name for v in found if v.type.tensor_type.shape.dim[0].dim_param == "batch"]
        if self.score == "patience":
            names += [f"exit.{layer}.{kind}" for kind in ("class", "agreeing")]
        return names


def _layers(graph: GraphProto, layer: int, name: str) -> str:
    """Append the number of a layer for each input here; return its name."""
    graph.node.append(_node("Shape", [f"logits.{layer}"], f"{name}.count", start=0, end=1))
    value = numpy_helper.from_array(np.array([layer]))
    graph.node.append(_node("ConstantOfShape", [f"{name}.count"], name, value=value))
    return name


def _batch_results(prefix: str, rows: str, shape: ModelShape) -> list[ValueInfoProto]:
    logits, exit_layer = (f"{prefix}{result}" for result in RESULTS)
    return [
        tensor(logits, TensorProto.FLOAT, rows, 1, shape.num_labels),
        tensor(exit_layer, TensorProto.INT64, rows),
    ]


def _of_batch(value: ValueInfoProto, rows: str) -> ValueInfoProto:
    """Name the number of inputs anew: ONNX Runtime takes sizes of one name to be equal."""
    named = ValueInfoProto()
    named.CopyFrom(value)
    for dim in named.type.tensor_type.shape.dim:
        if dim.dim_param == "batch":
            dim.dim_param = rows
    return named


def inlined(model: ModelProto) -> ModelProto:
    """Return a graph of this module without functions: what they hold stands where they are called.

    Runtimes that know no functions can read it. ONNX Runtime loads it far slower.
    """
    return inline_local_functions(model)


def with_metadata(model: ModelProto, added: Mapping[str, str]) -> ModelProto:
    """Return the model itself, with these entries of its metadata, whatever it said of them before."""
    helper.set_model_props(model, metadata_of(model) | dict(added))
    return model


def metadata_of(model: ModelProto) -> dict[str, Any]:
    """What a graph says of itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def refuse_other_model(model: Path, metadata: Mapping[str, str], **wanted: Any) -> None:
    """Refuse a graph that says that it is of another model; some say nothing of it.

    Args:
        model: where it is, for the message.
        metadata: the graph's.
        wanted: ``pipeline``, ``seed`` or ``labels``, a list.

    Raises:
        PipeOpsError: it is of another pipeline or seed, or has other classes.
    """
    for key, value in wanted.items():
        found = json.loads(metadata.get(f"pipeops.{key}", "null"))
        if found is not None and found != value:
            raise PipeOpsError(
                f"{model}: {key} is {as_given(found)}, where {as_given(value)} is wanted; name another model"
            )


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
    model.graph.input.extend(token_inputs(_inputs_at_once(shape)))
    graph = model.graph
    _take_thresholds(graph, shape, score)
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
    axis = _constant(graph, "exits.axis", [1])
    columns = [f"confidence.{layer}.column" for layer in shape.exit_layers]
    for layer, column in zip(shape.exit_layers, columns, strict=True):
        graph.node.append(_node("Unsqueeze", [f"confidence.{layer}", axis], column))
    graph.node.append(_node("Concat", [f"logits.{layer}" for layer in shape.exit_layers], "logits", axis=1))
    graph.node.append(_node("Concat", columns, "confidence.rounded", axis=1))
    one = _constant(graph, "confidence.most", np.float32(1))
    graph.node.append(_node("Min", ["confidence.rounded", one], "confidence"))


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


def _take_thresholds(graph: GraphProto, shape: ModelShape, score: Score) -> None:
    """Declare the input ``thresholds``, if there are any, and take them apart, one for each exit."""
    names = [f"exit.{layer}.threshold" for layer in shape.exit_layers[:-1]]
    if not names:
        return
    graph.input.append(tensor("thresholds", TensorProto.FLOAT, len(names)))
    given = "thresholds"
    if score != "patience":
        # A confidence may be rounded to just above 1, but a threshold above 1 means never.
        most, never = (
            _constant(graph, f"thresholds.{name}", np.float32(value))
            for name, value in (("most", 1), ("never", np.inf))
        )
        graph.node.append(_node("Greater", [given, most], "thresholds.out_of_reach"))
        graph.node.append(_node("Where", ["thresholds.out_of_reach", never, given], "thresholds.reached"))
        given = "thresholds.reached"
    split = {"axis": 0, "num_outputs": len(names)}
    graph.node.append(helper.make_node("Split", [given], names, name="thresholds.split", **split))


def _score(
    graph: GraphProto, layer: int, shape: ModelShape, score: Score, here: Mapping[str, str] | None = None
) -> str:
    """Append what the threshold of the exit after ``layer`` is compared with, (batch,); return its name."""
    here = here or {}
    name, logits = f"exit.{layer}", f"logits.{layer}"
    if score == "entropy":  # exp(-entropy), as the stage would compute it
        axis = _constant(graph, f"{name}.axes", [1, 2])
        graph.node.extend(
            [
                _node("Softmax", [logits], f"{name}.shares", axis=-1),
                _node("LogSoftmax", [logits], f"{name}.log_shares", axis=-1),
                _node("Mul", [f"{name}.shares", f"{name}.log_shares"], f"{name}.terms"),
                _node("ReduceSum", [f"{name}.terms", axis], f"{name}.negative", keepdims=0),
                _node("Exp", [f"{name}.negative"], f"{name}.by_entropy"),
            ]
        )
        return f"{name}.by_entropy"
    if score == "patience":
        axis = _constant(graph, f"{name}.of_inputs", [1])
        graph.node.append(_node("ArgMax", [logits], f"{name}.said", axis=-1, keepdims=0))
        graph.node.append(_node("Squeeze", [f"{name}.said", axis], f"{name}.class"))
        if layer == shape.exit_layers[0]:
            first = numpy_helper.from_array(np.ones(1, np.float32))
            graph.node.append(_node("Shape", [f"{name}.class"], f"{name}.inputs"))
            graph.node.append(_node("ConstantOfShape", [f"{name}.inputs"], f"{name}.agreeing", value=first))
            return f"{name}.agreeing"
        before = f"exit.{shape.exit_layers[shape.exit_layers.index(layer) - 1]}"
        one = _constant(graph, f"{name}.one_exit", np.ones(1, np.float32))
        of_before = [here.get(of, of) for of in (f"{before}.class", f"{before}.agreeing")]
        graph.node.extend(
            [
                _node("Equal", [f"{name}.class", of_before[0]], f"{name}.confirmed"),
                _node("Add", [of_before[1], one], f"{name}.longer"),
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
    sure = _sure(graph, layer, score)
    leave, go_on = _choose(graph, f"exit.{layer}", sure, _results(graph, shape))
    _answer(leave, layer, shape)
    return go_on


def _sure(graph: GraphProto, layer: int, score: str) -> str:
    """Append whether ``score`` reaches the threshold of the exit after ``layer``; return its name."""
    name = f"exit.{layer}"
    graph.node.append(_node("GreaterOrEqual", [score, f"{name}.threshold"], f"{name}.sure"))
    return f"{name}.sure"


def _choose(graph: GraphProto, name: str, condition: str, results: Sequence[str]) -> list[GraphProto]:
    """Append an If with two empty branches, one that leaves and one that goes on, and return them."""
    choice = graph.node.add(op_type="If", name=name, input=[condition], output=results)
    branches = [
        choice.attribute.add(name=branch, type=AttributeProto.GRAPH).g
        for branch in ("then_branch", "else_branch")
    ]
    for branch, what in zip(branches, ("leave", "go_on"), strict=True):
        branch.name = f"{name}.{what}"
    return branches


def _answer(graph: GraphProto, layer: int, shape: ModelShape) -> None:
    """End ``graph`` with the answer of the exit after ``layer``."""
    logits, exit_layer = _results(graph, shape)
    axis = _constant(graph, f"{logits}.axis", [1])
    graph.node.append(_node("Squeeze", [f"logits.{layer}", axis], logits))
    if shape.has_exits:
        graph.node.append(_node("Constant", [], exit_layer, value_ints=[layer]))
    else:
        _layers(graph, layer, exit_layer)


def _results(graph: GraphProto, shape: ModelShape) -> list[str]:
    """Declare the results as outputs of ``graph`` and return their names, which no other graph shares."""
    prefix = f"{graph.name}." if graph.name.startswith("exit.") else ""
    logits, exit_layer = (f"{prefix}{result}" for result in RESULTS)
    rows = _inputs_at_once(shape)
    graph.output.append(tensor(logits, TensorProto.FLOAT, rows, shape.num_labels))
    graph.output.append(tensor(exit_layer, TensorProto.INT64, rows))
    return [logits, exit_layer]


def _inputs_at_once(shape: ModelShape) -> int | str:
    """How many inputs ``model.onnx`` takes: any number, unless some leave before others."""
    return 1 if shape.has_exits else "batch"


def _nested(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and, outside in, every branch within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nested(attribute.g)
