"""One stage of a multi-exit encoder as a small ONNX model, emitted from the weights without tracing.

A stage is one encoder layer and its exit, where it has one; the first stage also embeds the tokens. It is a
model of its own, so that it can be transformed by itself (quantised, say) before the stages are stitched.
Tensors are named after the stage they belong to, so stages share no name but those of their interface:

    input_ids, attention_mask -> stage 1 -> mask, hidden.1, logits.1, confidence.1
    mask, hidden.1            -> stage 2 -> hidden.2, logits.2, confidence.2 ...

``hidden.k`` is (batch, length, hidden_size), ``logits.k`` (batch, 1, num_labels), ``confidence.k`` (batch,)
and ``mask`` the attention mask as int32. Where layers share more than it (rotary positions, the weights of a
mean over tokens), every stage takes that from the first. A confidence may be rounded to just above 1.
"""

from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.models.weights import Weights
from pipeops.settings import Confidence

OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
IR_VERSION = 10
# By Hugging Face's name. Gelu is the exact one, by the error function.
ACTIVATIONS = {"gelu": "Gelu", "relu": "Relu"}
_HEAD_ACTIVATIONS = ACTIVATIONS | {"tanh": "Tanh"}
WORDS = "embeddings.words"
"""The node that looks up the word embeddings."""
POOLING = "pooling"
"""One divided by the number of tokens, and 0 on padding."""
WORDS_TABLE = f"{WORDS}.table"
"""Their table; what quantising makes of it begins with this name."""


def emit_stages(
    shape: ModelShape, weights: Weights, *, confidence: Confidence = "max_probability"
) -> list[ModelProto]:
    """Emit the stages of a model, one per layer, first to last.

    Args:
        shape: the model's shape.
        weights: reads a tensor of the checkpoint; its shape must be the one that ``shape`` implies.
        confidence: how sure an exit is of its answer; see ``sections.ExitsSection``.

    Raises:
        PipeOpsError: the activation is not supported.
    """
    if shape.hidden_act not in ACTIVATIONS:
        supported = ", ".join(ACTIVATIONS)
        raise PipeOpsError(f"hidden_act: cannot export {shape.hidden_act!r}; use a backbone with {supported}")
    return [_emit_stage(layer, shape, weights, confidence) for layer in range(1, shape.num_layers + 1)]


def _emit_stage(layer: int, shape: ModelShape, weights: Weights, confidence: Confidence) -> ModelProto:
    stage, encoder = Stage(shape, weights), import_module(shape.layout.onnx)
    shared = [*encoder.shared(shape), *_pooling(shape)]
    mask = tensor("mask", TensorProto.INT32, "batch", "length")
    before, after = (
        tensor(f"hidden.{k}", TensorProto.FLOAT, "batch", "length", shape.hidden_size)
        for k in (layer - 1, layer)
    )
    inputs, outputs = [mask, *shared, before], [after]
    if layer == 1:
        inputs, outputs = token_inputs("batch"), [mask, *shared, after]
        encoder.embeddings(stage)
        stage.pooling()
    encoder.layer(stage, layer)
    if layer in shape.exit_layers:
        stage.exit(encoder.read(stage, layer), layer, confidence)
        outputs.append(tensor(f"logits.{layer}", TensorProto.FLOAT, "batch", 1, shape.num_labels))
        outputs.append(tensor(f"confidence.{layer}", TensorProto.FLOAT, "batch"))
    name = f"stage.{layer}"
    graph = helper.make_graph(stage.nodes, name, inputs, outputs, stage.initializers, value_info=stage.types)
    return make_model(graph)


def _pooling(shape: ModelShape) -> list[ValueInfoProto]:
    """The weights of a mean over tokens, if exits take it."""
    return [tensor(POOLING, TensorProto.FLOAT, "batch", "length", 1)] if shape.pooling == "mean" else []


def make_model(graph: GraphProto) -> ModelProto:
    """Wrap a graph into a model of the operator sets in use here."""
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="pipeops")


def token_inputs(batch: int | str) -> list[ValueInfoProto]:
    """Declare what every model takes: ``input_ids`` and ``attention_mask``, int64 (batch, length)."""
    return [tensor(name, TensorProto.INT64, batch, "length") for name in ("input_ids", "attention_mask")]


def tensor(name: str, dtype: int, *dims: int | str) -> ValueInfoProto:
    """Declare a tensor of a graph's interface; a dimension is a size or the name of a free one."""
    return helper.make_tensor_value_info(name, dtype, dims)


class Stage:
    """The nodes and weights of a stage in the making. Methods return the name of the tensor they compute.

    Sources are names of the checkpoint's tensors, without their endings.
    """

    def __init__(self, shape: ModelShape, weights: Weights) -> None:
        self.shape = shape
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.types: list[ValueInfoProto] = []

    def exit(self, read: str, layer: int, confidence: Confidence) -> str:
        """Classify what is pooled of the states that the exit reads, and say how sure the answer is."""
        source, name, head = f"exits.{layer}", f"exit.{layer}", self.shape.declared.head
        x = self._pooled(read, name)  # few operators from here on: each costs a run some microseconds
        x = self.linear(x, f"{name}.dense", f"{source}.dense")
        x = self.node(_HEAD_ACTIVATIONS[head.activation], [x], f"{name}.{head.activation}")
        if head.normed:
            x = self.layer_norm(x, f"{name}.normed", f"{source}.norm", bias=False)
        logits = self.linear(x, f"logits.{layer}", f"{source}.out_proj")
        probabilities = self.node("Softmax", [logits], f"{name}.probabilities", axis=-1)
        axis = self.constant(f"{name}.axis", np.array([1, 2]))
        sure = f"confidence.{layer}"
        if confidence == "entropy":
            logarithms = self.node("LogSoftmax", [logits], f"{name}.logarithms", axis=-1)
            products = self.node("Mul", [probabilities, logarithms], f"{name}.products")
            negative = self.node("ReduceSum", [products, axis], f"{name}.negative_entropy", keepdims=0)
            return self.node("Exp", [negative], sure)
        return self.node("ReduceMax", [probabilities, axis], sure, keepdims=0)

    def pooling(self) -> None:
        """Compute what :meth:`_pooled` weighs tokens by, once for all exits."""
        if self.shape.pooling == "first":
            return
        axis, last = (
            self.constant(f"{POOLING}.{name}", np.array([at])) for name, at in (("axis", 1), ("last", 2))
        )
        kept = self.node("Cast", ["mask"], f"{POOLING}.kept", to=TensorProto.FLOAT)
        count = self.node("ReduceSum", [kept, axis], f"{POOLING}.count", keepdims=1)
        weights = self.node("Div", [kept, count], f"{POOLING}.weights")
        self.node("Unsqueeze", [weights, last], POOLING)

    def _pooled(self, x: str, name: str) -> str:
        """The first token's state, or the mean over the tokens that are not padding: (batch, 1, hidden)."""
        if self.shape.pooling == "first":
            first = self.constant(f"{name}.index", np.array([0]))
            return self.node("Gather", [x, first], f"{name}.token", axis=1)
        self.types.append(tensor(f"{name}.mean", TensorProto.FLOAT, "batch", 1, self.shape.hidden_size))
        # Transposed: a product that begins with one row is summed in an order that depends on its length.
        return self.node("FusedMatMul", [POOLING, x], f"{name}.mean", domain="com.microsoft", transA=1)

    def node(
        self,
        op: str,
        inputs: list[str],
        output: str,
        *,
        domain: str = "",
        **attributes: int | float | list[int],
    ) -> str:
        """Append a node with one output, and named like it."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def constant(self, name: str, value: NDArray) -> str:
        """Append an initializer."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def word_embeddings(self, source: str) -> str:
        """Look the words up; where the table is of a low rank, widen its rows."""
        factorised = self.shape.embedding_rank > 0
        weight = self.weights(f"{source}.table.weight" if factorised else f"{source}.weight")
        found = self.node("Gather", [self.constant(WORDS_TABLE, weight), "input_ids"], WORDS)
        if not factorised:
            return found
        # The projection is a product too, so padding must have no say in its scale either.
        found = self.padding_like_first(found, f"{WORDS}.kept")
        projection = self.constant(f"{WORDS}.projection", self.weights(f"{source}.projection.weight").T)
        return self.node("MatMul", [found, projection], f"{WORDS}.wide")

    def padding_like_first(self, x: str, name: str, *, mask: str = "attention_mask") -> str:
        """Give padding the state of the first token.

        Nothing attends to padding, so it then keeps the first token's state in every layer. In fp32 that
        changes no answer. In int8 all positions of a product share one scale. Padding does not affect it,
        so padded and unpadded inputs get the same answer.
        """
        start, end, axis = (
            self.constant(f"{name}.{part}", np.array([value]))
            for part, value in (("start", 0), ("end", 1), ("axis", 1))
        )
        first = self.node("Slice", [x, start, end, axis], f"{name}.first")
        last_axis = self.constant(f"{name}.last_axis", np.array([-1]))
        column = self.node("Unsqueeze", [mask, last_axis], f"{name}.column")
        kept = self.node("Cast", [column], f"{name}.kept", to=TensorProto.BOOL)
        return self.node("Where", [kept, x, first], name)

    def branch(self) -> "Stage":
        """The nodes of a branch in the making; its weights are the stage's."""
        branch = Stage(self.shape, self.weights)
        branch.initializers = self.initializers
        return branch

    def choose(self, condition: str, name: str, then: "Stage", otherwise: "Stage", layer: int) -> str:
        """Compute a layer's attention by one branch or the other; what each computes last is the result."""
        width = self.shape.heads_per_layer[layer - 1] * self.shape.head_size
        graphs = {}
        for attribute, branch in (("then_branch", then), ("else_branch", otherwise)):
            result = tensor(branch.nodes[-1].output[0], TensorProto.FLOAT, "batch", "length", width)
            graphs[attribute] = helper.make_graph(branch.nodes, f"{name}.{attribute}", [], [result])
        self.nodes.append(helper.make_node("If", [condition], [name], name=name, **graphs))
        self.types.append(tensor(name, TensorProto.FLOAT, "batch", "length", width))
        return name

    def attention(
        self, parts: list[str], name: str, layer: int, *, mask: str = "mask", bias: str = ""
    ) -> str:
        """Multi-head attention of queries, keys and values that are given, over what is not padding.

        Args:
            parts: the three, each (batch, length, heads * head size).
            name: of the result.
            layer: counted from 1.
            mask: 1 where a token is attended to, (batch, length).
            bias: what is added to the scores, (batch or 1, heads or 1, length, length).
        """
        inputs = [*parts, "", mask] + ([bias] if bias else [])
        return self._attended("MultiHeadAttention", inputs, name, layer)

    def self_attention(
        self, x: str, name: str, layer: int, *, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> str:
        """The same over what is not padding, of maps of ``x``; it saves taking their product apart.

        Args:
            x: (batch, length, hidden).
            name: of the result.
            layer: counted from 1.
            weight: of queries, keys and values one after another, (3 * heads * head size, hidden).
            bias: likewise, (3 * heads * head size,).
        """
        given = [self.constant(f"{name}.weight", weight.T), self.constant(f"{name}.bias", bias)]
        return self._attended("Attention", [x, *given, "mask"], name, layer)

    def _attended(self, op: str, inputs: list[str], name: str, layer: int) -> str:
        heads = self.shape.heads_per_layer[layer - 1]
        # ONNX infers no types through another domain's operator, and what transforms a stage may need them.
        self.types.append(tensor(name, TensorProto.FLOAT, "batch", "length", heads * self.shape.head_size))
        return self.node(op, inputs, name, domain="com.microsoft", num_heads=heads)

    def split(self, x: str, names: list[str], name: str) -> list[str]:
        """Cut the last axis into equal parts."""
        self.nodes.append(helper.make_node("Split", [x], names, name=name, axis=-1, num_outputs=len(names)))
        return names

    def linear(self, x: str, name: str, source: str, *, bias: bool = True, rank: int = 0) -> str:
        """A linear map: one product, or two where it is factorised."""
        if rank:
            first = self.constant(f"{name}.first.weight", self.weights(f"{source}.first.weight").T)
            x = self.node("MatMul", [x, first], f"{name}.first")
            source = f"{source}.second"
        weight = self.weights(f"{source}.weight")
        return self.affine(x, name, weight, self.weights(f"{source}.bias") if bias else None)

    def affine(self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        """``x weight^T + bias``, with the weight stored transposed, as the product wants it."""
        transposed = self.constant(f"{name}.weight", weight.T)
        if bias is None:
            return self.node("MatMul", [x, transposed], name)
        product = self.node("MatMul", [x, transposed], f"{name}.product")
        return self.node("Add", [product, self.constant(f"{name}.bias", bias)], name)

    def layer_norm(self, x: str, name: str, source: str, *, bias: bool = True) -> str:
        """Norm of each token's state."""
        kinds = ("weight", "bias") if bias else ("weight",)
        given = [self.constant(f"{name}.{kind}", self.weights(f"{source}.{kind}")) for kind in kinds]
        return self.node("LayerNormalization", [x, *given], name, epsilon=self.shape.layer_norm_eps)
