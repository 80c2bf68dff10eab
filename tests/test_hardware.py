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
