"""Exporting a checkpoint to ONNX, without torch or transformers."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto

from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.integrity import sealed_folder
from pipeops.models.shape import ModelShape, read_config
from pipeops.models.weights import WEIGHTS, checked_weights
from pipeops.onnx.graphs import early_exit_graph, inlined, straight_graph, with_metadata
from pipeops.onnx.paths import graph_path
from pipeops.onnx.quantisation import quantise
from pipeops.onnx.stages import emit_stages
from pipeops.progress import tracked
from pipeops.settings import Confidence


def export(
    checkpoint: Path,
    output: Path,
    *,
    confidence: Confidence = "max_probability",
    inline: bool = False,
    layer: int | None = None,
) -> None:
    """Write a checkpoint as graphs, in fp32 and in int8. Same weights, same bytes.

    Args:
        checkpoint: folder with ``config.json`` and ``model.safetensors``.
        output: folder for ``model[-int8].onnx``, the graph to deploy (``stitching.early_exit_graph``), and
            ``profile[-int8].onnx``, the one that returns every exit's answer (``stitching.straight_graph``).
        confidence: how sure an exit is of its answer; see ``sections.ExitsSection``.
        inline: write graphs without functions, for runtimes that know none.
        layer: end the model at the exit after this layer, counted from 1; None: at its last one.

    Raises:
        PipeOpsError: there is no such exit, or the checkpoint is damaged, disagrees with its configuration,
            or cannot be exported.
    """
    shape = ModelShape.from_checkpoint(checkpoint)
    if layer not in (None, *shape.exit_layers):
        layers = ", ".join(map(str, shape.exit_layers))
        raise PipeOpsError(f"--layer: {checkpoint} has no exit after layer {layer}; give one of {layers}")
    with checked_weights(checkpoint / WEIGHTS, shape) as weights:
        shape = shape if layer is None else shape.cut(layer)
        stages = emit_stages(shape, weights, confidence=confidence)
    origin = _origin(read_config(checkpoint))
    with sealed_folder(output, last=graph_path(output, "profile", quantised=True).name) as folder:
        write_both = partial(
            _write_graphs, shape=shape, folder=folder, origin=origin, confidence=confidence, inline=inline
        )
        write_both(stages, quantised=False)
        quantised = [quantise(stage) for stage in tracked(stages, "quantise", total=len(stages))]
        write_both(quantised, quantised=True)


def _write_graphs(
    stages: Sequence[ModelProto],
    *,
    shape: ModelShape,
    folder: Path,
    origin: Mapping[str, str],
    quantised: bool,
    confidence: Confidence,
    inline: bool,
) -> None:
    def finish(graph: ModelProto, path: Path) -> None:
        write(with_metadata(inlined(graph) if inline else graph, origin), path)

    model = early_exit_graph(stages, shape, confidence=confidence)
    finish(model, graph_path(folder, "model", quantised=quantised))
    finish(straight_graph(stages, shape), graph_path(folder, "profile", quantised=quantised))


def _origin(config: Mapping[str, Any]) -> dict[str, str]:
    """What a graph says of the model that it is made of: who measures it must not mistake it for another."""
    names = config.get("id2label")
    known = {
        "pipeline": config.get("pipeline"),
        "seed": config.get("seed"),
        "labels": [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else None,
    }
    return {f"pipeops.{key}": json.dumps(value) for key, value in known.items() if value is not None}


def write(graph: ModelProto, path: Path) -> None:
    """Write a graph to ``path``, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))
