"""Where a result comes from: code, packages, machine, parameters."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import pipeops
from pipeops.files import replaced

PACKAGES = (
    *("torch", "transformers", "datasets", "tokenizers", "onnx", "onnxruntime"),
    *("numpy", "pandas", "scipy", "matplotlib", "seaborn", "snakemake"),
)
_INSTRUCTION_SETS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimddp", "i8mm"),
)
# In the order in which ONNX Runtime prefers them.
_INT8_KERNELS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "i8mm": "Arm I8MM",
    "asimddp": "Arm dot product",
}
INT8_WITHOUT_DOT_PRODUCTS = "generic"
"""Int8 kernels where the CPU has no instructions for dot products of bytes."""


def provenance(**parameters: Any) -> dict[str, Any]:
    """Describe this run.

    Args:
        parameters: what the result depends on (seed, settings, threads ...), JSON-ready.
    """
    return {
        "pipeops": pipeops.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": versions(*PACKAGES),
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
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")


@cache
def cpu() -> dict[str, Any]:
    """Model, cores, memory and the instruction sets that matter for inference."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    description = Path("/proc/cpuinfo")
    if description.exists():
        lines = (line.partition(":") for line in reversed(description.read_text().splitlines()))
        fields = {name.strip(): value.strip() for name, _, value in lines}
        model = fields.get("model name", model)
        flags = set(fields.get("flags", fields.get("Features", "")).split())  # x86, Arm
    return {
        "model": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "instructions": [name for name in _INSTRUCTION_SETS if name in flags],
    }


def int8_kernels() -> str:
    """Which instructions int8 products run on here, by what the CPU offers."""
    found = cpu()["instructions"]
    return next((name for flag, name in _INT8_KERNELS.items() if flag in found), INT8_WITHOUT_DOT_PRODUCTS)


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
