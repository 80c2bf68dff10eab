"""The files that measuring writes and the analyses read: their columns and names."""

from pathlib import Path

from pipeops.files import beside

_POINT = ["metric", "accuracy", "time_ms", "time_relative"]
_SIZE = ["flops_relative", "flops", "parameters", "parameters_relative"]
COLUMNS = ["inference", "threshold", *_POINT, "mean_exit_layer", *_SIZE, "kernels"]
"""Columns of a pipeline's CSV, a row per threshold: ``accuracy`` is in the task's ``metric`` (one of
``classes.METRICS``), a fraction; ``time_relative``, ``flops_relative`` and ``parameters_relative`` are over
O's."""
EXIT_COLUMNS = ["inference", "exit_layer", *_POINT, *_SIZE, "kernels"]
"""Columns of its ``.exits.csv``, a row per exit: all examples leave there, and the model ends there."""


def exits_path(path: Path) -> Path:
    """Where the rows per exit lie, beside the CSV of rows per threshold, of one seed or of all."""
    return path.with_suffix(".exits.csv")


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """The CSV itself, its rows per exit, and its JSON: they are written together."""
    return path, exits_path(path), beside(path)
