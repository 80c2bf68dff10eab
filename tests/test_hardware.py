"""What is known of the machine."""

import pytest

from pipeops import hardware
from pipeops.hardware import int8_kernels


@pytest.mark.parametrize(
    ("instructions", "kernels"),
    [
        (["avx2", "avx512f"], "generic"),
        (["avx2", "avx_vnni"], "AVX-VNNI"),
        (["avx512_vnni", "amx_int8"], "AMX"),
        (["asimddp"], "Arm dot product"),
        ([], "generic"),
    ],
)
def test_int8_kernels_follow_the_instructions(monkeypatch, instructions, kernels):
    monkeypatch.setattr(hardware, "cpu", lambda: {"instructions": instructions})
    assert int8_kernels() == kernels


@pytest.mark.parametrize(
    ("instructions", "faster", "dtype"),
    [
        (["avx512_bf16"], True, "bf16"),
        (["avx512_bf16"], False, "fp32"),
        (["amx_bf16"], True, "bf16"),
        (["avx512f"], True, "fp32"),  # emulated
    ],
)
def test_a_cpu_computes_in_bf16_where_it_is_faster(monkeypatch, instructions, faster, dtype):
    monkeypatch.setattr(hardware, "cpu", lambda: {"instructions": instructions})
    monkeypatch.setattr(hardware, "_bf16_is_faster", lambda: faster)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert hardware.compute_dtype("auto") == dtype
    assert hardware.compute_dtype("fp32") == "fp32"


@pytest.mark.parametrize("bf16_seconds", [0.1, 0.9, 3.0])
def test_bf16_is_faster_if_its_least_time_is_clearly_less(monkeypatch, bf16_seconds):
    import torch

    clock, calls = 0.0, 0

    def linear(inputs, _):
        nonlocal clock, calls
        calls += 1
        disturbed = 5.0 if calls % 3 else 0.0
        clock += disturbed + (bf16_seconds if inputs.dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: clock)
    assert hardware._bf16_is_faster.__wrapped__() == (bf16_seconds < 1 / 1.2)
