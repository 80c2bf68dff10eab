"""How slender C makes a model, and by which steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeops.errors import PipeOpsError
from pipeops.models.architectures import KNOWN, TINY_ARCHITECTURE
from pipeops.operators.builtin import CostEffSection
from pipeops.operators.width import Width, full_width, target_width, widths

BERT_BASE = KNOWN["google-bert/bert-base-uncased"]
SOURCE = Width(heads=2, ffn=256, rank=128)


def test_the_sources_width_has_13_9_million_weights():
    assert SOURCE.parameters(BERT_BASE) == pytest.approx(13.9e6, rel=0.02)
    settings = CostEffSection(heads=2, ffn=256, rank=128)
    assert target_width(settings, BERT_BASE) == SOURCE


def test_an_eighth_of_bert_base_is_about_the_sources_width():
    width = target_width(CostEffSection(compression=8), BERT_BASE)
    assert (width.heads, width.rank) == (2, 128)
    assert width.ffn == pytest.approx(256, rel=0.1)


@given(compression=st.floats(1.01, 19))
def test_a_compression_is_reached_and_hardly_exceeded(compression):
    full = full_width(BERT_BASE)
    width = target_width(CostEffSection(compression=compression), BERT_BASE)
    original = BERT_BASE.parameters(heads=full.heads, ffn=full.ffn)
    assert original / width.parameters(BERT_BASE) >= compression
    one_more = Width(heads=width.heads, ffn=width.ffn + 1, rank=width.rank)
    at_its_share = width.ffn == full.ffn * width.heads // full.heads
    assert at_its_share or original / one_more.parameters(BERT_BASE) < compression


def test_steps_drop_one_head_each_and_the_rest_linearly():
    steps = widths(full_width(BERT_BASE), SOURCE)
    assert [step.heads for step in steps] == list(range(11, 1, -1))
    assert steps[4] == Width(heads=7, ffn=1664, rank=448)  # half-way
    assert steps[-1] == SOURCE


def test_without_a_head_to_drop_there_is_one_step():
    full = full_width(TINY_ARCHITECTURE)
    target = Width(heads=full.heads, ffn=100, rank=40)
    assert widths(full, target) == [target]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"heads": 13, "ffn": 256, "rank": 128},
            "costeff.heads: 13 is more than the backbone's 12; lower it",
        ),
        ({"heads": 2, "ffn": 4000, "rank": 128}, "costeff.ffn: 4000 is more than the backbone's 3072"),
        ({"heads": 2, "ffn": 256, "rank": 769}, "costeff.rank: 769 is more than the backbone's 768"),
        ({"compression": 60}, r"costeff.compression: 60 is out of reach: .* are 1/2\d.\d of the backbone"),
    ],
)
def test_a_width_that_cannot_be_is_refused(settings, message):
    with pytest.raises(PipeOpsError, match=message):
        target_width(CostEffSection(**settings), BERT_BASE)
