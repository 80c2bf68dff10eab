"""The vocabulary that V leaves, as plain data."""

import pytest
from measured import tiny_shape

from pipeops.models.vocabulary import Vocabulary

KEPT = Vocabulary((0, 1, 4, 7), before=60)


def test_places_are_the_new_ids():
    assert [KEPT.new(old) for old in KEPT.kept] == [0, 1, 2, 3]
    for dropped in (2, 8, -1):
        with pytest.raises(ValueError, match=f"token {dropped} is not kept"):
            KEPT.new(dropped)


def test_a_shape_is_changed_and_restored():
    whole = tiny_shape(vocab_size=60, pad_token_id=1, sep_token_id=7)
    pruned = KEPT.applied(whole)
    assert (pruned.vocab_size, pruned.pad_token_id, pruned.sep_token_id) == (4, 1, 3)
    assert KEPT.undone(pruned) == whole
    assert whole.parameters - pruned.parameters == 56 * whole.hidden_size
