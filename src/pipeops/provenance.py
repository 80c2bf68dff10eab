"""Where a result comes from: code, packages, machine, parameters."""

import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from pipeops.files import replaced
from pipeops.hardware import cpu

PACKAGES = (
    *("torch", "transformers", "datasets", "tokenizers", "onnx", "onnxruntime"),
    *("numpy", "pandas", "scipy", "matplotlib", "seaborn", "snakemake"),
)
OPERATOR_GROUP = "pipeops.operators"
"""Entry point group of the packages that add operators."""


def provenance(**parameters: Any) -> dict[str, Any]:
    """Describe this run.

    Args:
        parameters: what the result depends on (seed, settings, threads ...), JSON-ready.
    """
    return {
        "pipeops": version("pipeops"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": versions(*PACKAGES, *_operator_packages()),
        "cpu": cpu(),
        "platform": platform.platform(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters,
    }


def common_provenance(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge the provenance of several results: a value where all agree, else the list of what occurs.

    Args:
        records: what ``provenance`` returned for each. Times become the first and the last.
    """
    records = list(records)
    merged: dict[str, Any] = {}
    for key in ("pipeops", "commit", "python", "packages", "cpu", "int8_kernels", "platform"):
        found = [record.get(key) for record in records]
        distinct = [value for i, value in enumerate(found) if value not in found[:i]]
        merged[key] = distinct[0] if len(distinct) == 1 else distinct
    finished = sorted(record["finished"] for record in records)
    return merged | {
        "measurements": len(records),
        "first_finished": finished[0],
        "last_finished": finished[-1],
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed."""
    return {name: found for name in packages if (found := _version(name))}


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON in one step."""
    with replaced(path) as temporary:
        temporary.write_text(json_text(content))


def json_text(content: Any) -> str:
    """Readable JSON."""
    return json.dumps(content, indent=2, default=str) + "\n"


def _operator_packages() -> list[str]:
    """The installed packages that add operators."""
    return sorted({entry.dist.name for entry in entry_points(group=OPERATOR_GROUP) if entry.dist})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with ``-dirty`` where it was changed; None outside a checkout."""
    source = Path(__file__).parent
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
