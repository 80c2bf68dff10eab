"""Exit rules on answers worked out by hand."""

import math

import numpy as np
import pytest

from pipeops.errors import PipeOpsError
from pipeops.measuring.policies import agreeing, first_reached, leaving, scores, thresholds_of


def logits_of(*probabilities):
    return np.log(np.array([probabilities], dtype=np.float32))


def test_confidences_of_known_probabilities():
    logits = logits_of([0.5, 0.5], [0.9, 0.1], [0.25, 0.75])
    assert scores(logits, "max_probability")[0].tolist() == pytest.approx([0.5, 0.9, 0.75])
    entropy = [-sum(p * math.log(p) for p in row) for row in ([0.5, 0.5], [0.9, 0.1], [0.25, 0.75])]
    assert scores(logits, "entropy")[0].tolist() == pytest.approx([math.exp(-e) for e in entropy])


@pytest.mark.parametrize("confidence", ["max_probability", "entropy"])
def test_certainty_is_one_and_nothing_is_above(confidence):
    logits = np.array([[[0, 200], [0, 20], [0, 1]]], dtype=np.float32)
    sure = scores(logits, confidence)
    assert sure.dtype == np.float32
    assert sure[0, 0] == 1
    assert (sure <= 1).all()


def test_agreeing_exits_are_counted_with_the_first():
    classes = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [2, 0, 2, 0], [1, 0, 0, 0]])
    assert agreeing(classes).tolist() == [[1, 2, 3, 4], [1, 1, 2, 1], [1, 1, 1, 1], [1, 1, 2, 3]]


@pytest.mark.parametrize(
    ("patience", "exits"), [(1, [0, 0, 0, 0]), (2, [1, 2, 3, 2]), (3, [2, 3, 3, 3]), (4, [3, 3, 3, 3])]
)
def test_patience_leaves_when_so_many_in_a_row_agree(patience, exits):
    classes = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [2, 0, 2, 0], [1, 0, 0, 0]])
    assert leaving(np.eye(3, dtype=np.float32)[classes], "patience", patience).tolist() == exits


def pabee(classes, patience):
    """The published rule: stop once the answer was confirmed ``patience`` times in a row."""
    count = 0
    for index in range(1, len(classes)):
        count = count + 1 if classes[index] == classes[index - 1] else 0
        if count == patience:
            return index
    return len(classes) - 1


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_patience_is_pabees_plus_one(patience):
    classes = np.random.default_rng(0).integers(0, 2, (200, 6))
    left = leaving(np.eye(2, dtype=np.float32)[classes], "patience", patience + 1)
    assert left.tolist() == [pabee(row, patience) for row in classes]


def test_a_threshold_is_reached_by_equality_in_single_precision():
    sure = np.array([[0.7, 0.9, 0.1]], dtype=np.float32)
    assert first_reached(sure, 0.7).tolist() == [0]
    assert first_reached(sure, np.nextafter(np.float32(0.7), np.float32(1))).tolist() == [1]
    assert first_reached(sure, 0.95).tolist() == [2]
    assert first_reached(sure[:, :1], math.nan).tolist() == [0]
    assert first_reached(sure, [0.7, 0.95, 2]).tolist() == [[0], [2], [2]]


def test_which_thresholds_a_model_is_replayed_with():
    given = {"thresholds": [0, 0.5, 1.01], "patiences": None}
    assert thresholds_of("max_probability", exits=3, **given) == [0, 0.5, 1.01]
    assert thresholds_of("patience", exits=3, **given) == [1, 2, 3]
    assert thresholds_of("patience", exits=3, thresholds=[], patiences=[1, 3]) == [1, 3]
    assert math.isnan(*thresholds_of("patience", exits=1, thresholds=[], patiences=[4]))


@pytest.mark.parametrize("patience", [0, 4])
def test_a_patience_that_no_model_can_have_is_refused(patience):
    message = f"^patiences: {patience}, but a model here has 3 exits; give numbers from 1 to 3$"
    with pytest.raises(PipeOpsError, match=message):
        thresholds_of("patience", exits=3, thresholds=[], patiences=[1, patience])
