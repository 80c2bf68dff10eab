"""Q: int8 weights, one scale per output channel, and int8 activations, scaled anew at every run.

A model is quantised stage by stage, since ``quantize_dynamic`` passes over the branches of an ``If``
without a word.
"""

import tempfile
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from pipeops.errors import PipeOpsError
from pipeops.onnx.stages import WORDS

_PRODUCTS = ("MatMul", "Attention")
"""Operators that multiply by weights, as they are emitted."""
_FLOAT_PRODUCTS = {*_PRODUCTS, "Gemm"}  # integer products have operators of their own


def quantise(stage: ModelProto) -> ModelProto:
    """Quantise one stage: the weights of all matrix products, and the word embeddings.

    Weights become int8 with a scale per output channel. The word embeddings become uint8 with one scale for
    the whole table, as ``quantize_dynamic`` offers for a ``Gather``. Positions, norms and biases stay float.

    Args:
        stage: as ``emission.emit_stages`` makes it; it is not changed.

    Raises:
        PipeOpsError: a product with a float weight is left, or a temporary file is lost.
    """
    prepared = ModelProto()
    prepared.CopyFrom(stage)
    # Emitted graphs are typed and hold nothing to fold, which is what pre-processing is for.
    add_pre_process_metadata(prepared)
    targets = [node.name for node in stage.graph.node if node.op_type in _PRODUCTS or node.name == WORDS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stage.onnx"
        lost = PipeOpsError(f"{folder}: files there are not written whole; look at its disk and run again")
        # ONNX's shape inference does not look whether its file was written. An empty file is a valid model.
        try:
            quantize_dynamic(
                prepared,
                path,
                op_types_to_quantize=[*_PRODUCTS, "Gather"],
                nodes_to_quantize=targets,
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
        except ValueError as error:
            if "ai.onnx domain" in str(error):  # every stage names its version
                raise lost from None
            raise
        quantised = onnx.load(path)
    if [value.name for value in quantised.graph.output] != [value.name for value in stage.graph.output]:
        raise lost
    _reorder(quantised.graph)
    if left := float_products(quantised):
        raise PipeOpsError(f"Q: {stage.graph.name}: {', '.join(left)} kept a float weight; report this")
    return quantised


def _reorder(graph: GraphProto) -> None:
    """Put nodes with branches behind what their branches take from around them; quantize_dynamic does not."""
    if not any(_branches(node) for node in graph.node):
        return
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    needed = {
        index: {maker[name] for name in _taken(node) if name in maker} for index, node in enumerate(nodes)
    }
    ordered = [nodes[index] for index in TopologicalSorter(needed).static_order()]
    del graph.node[:]
    graph.node.extend(ordered)


def _branches(node: NodeProto) -> list[GraphProto]:
    return [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]


def _taken(node: NodeProto) -> Iterator[str]:
    """Names that a node takes, those within its branches included."""
    yield from node.input
    for branch in _branches(node):
        for inner in branch.node:
            yield from _taken(inner)


def float_products(model: ModelProto) -> list[str]:
    """Name every product with a float weight: in the graph, its branches and functions.

    A weight is an initializer, a constant, or anything computed from those alone (such as a transposed or a
    dequantised one).
    """
    found = _in_graph(model.graph, frozenset())
    for function in model.functions:
        found += _in_nodes(function.node, frozenset())
    return found


def _in_graph(graph: GraphProto, constants: frozenset[str]) -> list[str]:
    return _in_nodes(graph.node, constants | {weight.name for weight in graph.initializer})


def _in_nodes(nodes: Iterable[NodeProto], constants: frozenset[str]) -> list[str]:
    found = []
    for node in nodes:
        if node.op_type in _FLOAT_PRODUCTS and constants & set(node.input[:2]):
            found.append(node.name or node.output[0])
        branches = _branches(node)
        for branch in branches:
            found += _in_graph(branch, constants)
        if not branches and set(node.input) <= constants:
            constants |= set(node.output)
    return found
