"""Names of a pipeline's exported files."""

from pathlib import Path
from typing import Literal


def graph_path(folder: Path, graph: Literal["model", "profile"], *, quantised: bool) -> Path:
    """Where a pipeline's graph lies in its folder: the one to deploy or to profile, in fp32 or int8."""
    return folder / f"{graph}{'-int8' if quantised else ''}.onnx"
