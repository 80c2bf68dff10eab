"""The machine: its CPU, where trainings run, and the precision that they compute in.

torch is imported by the functions that ask it for a device, so that reading the CPU costs nothing.
"""

import os
import platform
import shutil
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from pipeops.errors import PipeOpsError
from pipeops.settings import Device, Precision

if TYPE_CHECKING:
    import torch

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
_BF16_ROWS, _BF16_WIDTH, _BF16_ROUNDS = 256, 512, 10
"""The product that fp32 and bf16 are compared by: some 20 ms in all."""
_BF16_GAIN = 1.2
"""bf16 must be faster by this factor, as it costs conversions beside the products."""
INT8_WITHOUT_DOT_PRODUCTS = "generic"
"""Int8 kernels where the CPU has no instructions for dot products of bytes."""


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


def cpu_of(record: Mapping[str, Any]) -> str:
    """The CPU that a record was made on, as far as times tell CPUs apart: model, and int8 instructions.

    Virtual machines give CPUs with and without AMX one name.

    Args:
        record: with ``cpu`` as :func:`cpu` returns it and ``int8_kernels``.
    """
    return f"{record['cpu']['model']} (int8: {record['int8_kernels']})"


def this_cpu() -> str:
    """The same of this machine."""
    return cpu_of({"cpu": cpu(), "int8_kernels": int8_kernels()})


def device() -> "torch.device":
    """Where a training runs: the first visible GPU, or the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """The GPU's name, or ``cpu``."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def compute_dtype(precision: Precision) -> Literal["fp32", "bf16"]:
    """The floating-point type that a training of this ``training.precision`` computes in on this machine."""
    import torch

    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has_instructions = {"amx_bf16", "avx512_bf16"} & set(cpu()["instructions"])
    return "bf16" if has_instructions and _bf16_is_faster() else "fp32"


@cache
def _bf16_is_faster() -> bool:
    """Whether a matrix product takes clearly less time in bf16, measured on this CPU.

    Its instructions do not say so. Of two CPUs with AVX-512 BF16 and without AMX one trained 1.4 to 1.8 times
    as fast in bf16; on the other products took 1.9 times as long as in fp32.
    """
    import torch

    inputs, weight = torch.ones(_BF16_ROWS, _BF16_WIDTH), torch.ones(_BF16_WIDTH, _BF16_WIDTH)
    pairs = {dtype: (inputs.to(dtype), weight.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    taken: dict[torch.dtype, list[float]] = {dtype: [] for dtype in pairs}
    for _ in range(_BF16_ROUNDS):
        for dtype, pair in pairs.items():
            start = time.perf_counter()
            torch.nn.functional.linear(*pair)
            taken[dtype].append(time.perf_counter() - start)
    # The least times: what other processes add counts for neither.
    return min(taken[torch.float32]) > _BF16_GAIN * min(taken[torch.bfloat16])


def prepare_device(asked: Device, *, threads: int) -> "torch.device":
    """Prepare the device of a training: this process's GPU, or the CPU with ``threads`` threads.

    Raises:
        PipeOpsError: a GPU is asked for and there is none.
    """
    import torch

    if not torch.cuda.is_available():
        if asked == "gpu":
            raise PipeOpsError(
                "training.device: a GPU is asked for and PyTorch finds none that it can use; see what "
                "nvidia-smi says and which build of torch is installed, or set it to auto or cpu"
            )
        torch.set_num_threads(threads)
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")  # TF32 where a product is not in bf16
    found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(found)
    return found


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which compiled models need."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name)


def compile_mode() -> str:
    """How a model is compiled: on a GPU with CUDA graphs, since small batches wait for kernels to start."""
    import torch

    return "reduce-overhead" if torch.cuda.is_available() else "default"
