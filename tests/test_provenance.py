"""What a result records of where it comes from."""

from pipeops import provenance
from pipeops.provenance import common_provenance


def record(**changes):
    return provenance.provenance() | {"int8_kernels": "AVX512-VNNI"} | changes


def test_values_that_agree_are_kept_and_others_listed():
    merged = common_provenance(
        [
            record(commit="a", finished="2026-01-02"),
            record(commit="b", finished="2026-01-01"),
            record(commit="a", finished="2026-01-03"),
        ]
    )
    assert merged["commit"] == ["a", "b"]
    assert merged["int8_kernels"] == "AVX512-VNNI"
    assert merged["packages"]["onnxruntime"]
    assert (merged["first_finished"], merged["last_finished"]) == ("2026-01-01", "2026-01-03")
    assert merged["measurements"] == 3
