"""Exporting a checkpoint to ONNX, without torch or transformers."""

from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto

from pipeops.files import replaced
from pipeops.integrity import sealed_folder
from pipeops.models.shape import ModelShape
from pipeops.models.weights import WEIGHTS, checked_weights
from pipeops.onnx.graphs import early_exit_graph, straight_graph
from pipeops.onnx.paths import graph_path
from pipeops.onnx.quantisation import quantise
from pipeops.onnx.stages import emit_stages
from pipeops.progress import tracked
from pipeops.settings import Confidence


def export(checkpoint: Path, output: Path, *, confidence: Confidence = "max_probability") -> None:
    """Write a checkpoint as graphs, in fp32 and in int8. Same weights, same bytes.

    Args:
        checkpoint: folder with ``config.json`` and ``model.safetensors``.
        output: folder for ``model[-int8].onnx``, the graph to deploy (``stitching.early_exit_graph``), and
            ``profile[-int8].onnx``, the one that returns every exit's answer (``stitching.straight_graph``).
        confidence: how sure an exit is of its answer; see ``sections.ExitsSection``.

    Raises:
        PipeOpsError: the checkpoint is damaged, disagrees with its configuration, or cannot be exported.
    """
    shape = ModelShape.from_checkpoint(checkpoint)
    with checked_weights(checkpoint / WEIGHTS, shape) as weights:
        stages = emit_stages(shape, weights, confidence=confidence)
    with sealed_folder(output, last=graph_path(output, "profile", quantised=True).name) as folder:
        _write_graphs(stages, shape, folder, quantised=False, confidence=confidence)
        quantised = [quantise(stage) for stage in tracked(stages, "quantise", total=len(stages))]
        _write_graphs(quantised, shape, folder, quantised=True, confidence=confidence)


def _write_graphs(
    stages: Sequence[ModelProto], shape: ModelShape, folder: Path, *, quantised: bool, confidence: Confidence
) -> None:
    model = early_exit_graph(stages, shape, confidence=confidence)
    write(model, graph_path(folder, "model", quantised=quantised))
    write(straight_graph(stages, shape), graph_path(folder, "profile", quantised=quantised))


def write(graph: ModelProto, path: Path) -> None:
    """Write a graph to ``path``, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))
