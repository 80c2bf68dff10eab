"""Exporting a checkpoint to ONNX, without torch or transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnx import ModelProto
from safetensors import SafetensorError, safe_open

from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.models.shape import ModelShape, tensor_shapes
from pipeops.onnx.graphs import early_exit_graph, straight_graph
from pipeops.onnx.paths import graph_path
from pipeops.onnx.quantisation import quantise
from pipeops.onnx.stages import Weights, emit_stages
from pipeops.progress import tracked
from pipeops.settings import Confidence

# A Protocol Buffers file ends at 2 GiB; the graph around the weights takes far less than 16 MiB.
MAX_WEIGHTS = 2**31 - 2**24


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
    with checked_weights(checkpoint / "model.safetensors", shape) as weights:
        stages = emit_stages(shape, weights, confidence=confidence)
    _write_graphs(stages, shape, output, quantised=False, confidence=confidence)
    quantised = [quantise(stage) for stage in tracked(stages, "quantise", total=len(stages))]
    _write_graphs(quantised, shape, output, quantised=True, confidence=confidence)


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


@contextmanager
def checked_weights(path: Path, shape: ModelShape) -> Iterator[Weights]:
    """Open ``model.safetensors`` and yield the function that reads a tensor of it.

    Raises:
        PipeOpsError: the file is absent, damaged or too large, or its tensors are not those of ``shape``.
    """
    if not path.is_file():
        raise PipeOpsError(f"{path}: not found; train the model again")
    if (size := path.stat().st_size) > MAX_WEIGHTS:
        raise PipeOpsError(
            f"{path}: {size} bytes, but an ONNX file holds at most 2 GiB; use a smaller backbone"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            _refuse_mismatch(
                path,
                expected={name: ("F32", dims) for name, dims in tensor_shapes(shape).items()},
                found={name: (part.get_dtype(), tuple(part.get_shape())) for name, part in found.items()},
            )
            yield file.get_tensor
    except SafetensorError as error:
        raise PipeOpsError(f"{path}: damaged ({error}); train the model again") from None


def _refuse_mismatch(path: Path, *, expected: dict[str, tuple], found: dict[str, tuple]) -> None:
    """Refuse the first tensor that is missing, unknown, or not of the type and shape expected."""
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, got = (
                f"{t[0]} {list(t[1])}" if t else "none" for t in (expected.get(name), found.get(name))
            )
            raise PipeOpsError(
                f"{path}: {name}: config.json implies {wanted}, found {got}; train the model again"
            )
