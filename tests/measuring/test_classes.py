"""Metrics and reports of classes, against numbers worked out by hand and, of two classes, correlation."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeops.measuring.classes import (
    ACCURACY,
    MACRO_F1,
    MCC,
    METRICS,
    Counts,
    by_class,
    confusion,
    counts,
    counts_of,
)
from pipeops.settings import Metric

# Rows: 4 of a (3 right), 3 of b (1 right, 2 called a), 3 of c (2 right, 1 called b).
MATRIX = np.array([[3, 1, 0], [2, 1, 0], [0, 1, 2]])
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
ANSWERS = np.array([0, 0, 0, 1, 0, 0, 1, 1, 2, 2])
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def of(metric, labels, answers):
    return metric.of_answers(np.array(labels), np.array(answers))


def test_the_matrix_counts_labels_by_row_and_answers_by_column():
    assert confusion(LABELS, ANSWERS, 3).tolist() == MATRIX.tolist()
    assert confusion(np.array([0]), np.array([1]), 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_numbers_worked_out_by_hand():
    a, b, c = by_class(counts_of(MATRIX))
    assert a == (pytest.approx(3 / 5), pytest.approx(3 / 4), pytest.approx(2 / 3), 4)
    assert b == (pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3), 3)
    assert c == (pytest.approx(1), pytest.approx(2 / 3), pytest.approx(4 / 5), 3)
    assert ACCURACY.of(counts_of(MATRIX)) == pytest.approx(6 / 10)
    assert MACRO_F1.of(counts_of(MATRIX)) == pytest.approx((2 / 3 + 1 / 3 + 4 / 5) / 3)
    # Answers 5, 3, 2; labels 4, 3, 3: (6*10 - 35) / sqrt((100 - 38) * (100 - 34))
    assert MCC.of(counts_of(MATRIX)) == pytest.approx(25 / math.sqrt(62 * 66))


@given(PAIRS)
def test_counts_of_answers_are_those_of_their_matrix(pairs):
    labels, answers = np.array(pairs).T
    found, expected = counts(labels, answers), counts_of(confusion(labels, answers, 4))
    for one, other in zip(found, expected, strict=True):
        assert one.tolist() == other[: len(one)].tolist()
        assert not other[len(one) :].any()


@pytest.mark.parametrize("metric", METRICS.values())
def test_many_answers_at_once_give_what_each_gives_alone(metric):
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 3, 30), rng.integers(0, 4, (2, 5, 30))
    found = metric.of_answers(labels, answers)
    assert found.shape == (2, 5)
    for place in np.ndindex(2, 5):
        matrix = confusion(labels, answers[place], 4)
        assert found[place] == pytest.approx(metric.of(counts_of(matrix)), abs=1e-15)


@given(PAIRS)
def test_accuracy_is_the_mean_of_what_is_right_to_the_last_bit(pairs):
    labels, answers = np.array(pairs).T
    assert float(ACCURACY.of_answers(labels, answers)) == (labels == answers).mean()


@given(PAIRS, st.integers(2, 7))
def test_a_metric_depends_on_shares_and_not_on_how_many_there_are(pairs, times):
    once = counts(*np.array(pairs).T)
    for metric in METRICS.values():
        for scale in (times, 1 / 3 / len(pairs)):
            assert metric.of(Counts(*(scale * count for count in once))) == pytest.approx(metric.of(once))


@given(PAIRS)
def test_values_are_within_their_range_and_1_where_all_is_right(pairs):
    labels, answers = np.array(pairs).T
    for metric in METRICS.values():
        assert metric.least <= metric.of_answers(labels, answers) <= 1
        if len(set(labels)) > 1 or metric is not MCC:
            assert metric.of_answers(labels, labels) == pytest.approx(1)


def test_by_chance_mcc_is_0_and_the_others_tell_how_frequent_classes_are():
    labels = np.repeat([0, 1], [900, 100])
    always = np.zeros_like(labels)
    assert MCC.of_answers(labels, always) == 0
    assert ACCURACY.of_answers(labels, always) == 0.9
    assert MACRO_F1.of_answers(labels, always) == pytest.approx(1800 / 1900 / 2)
    drawn = np.random.default_rng(0).permuted(np.tile(labels, (400, 1)), axis=1)
    assert MCC.of_answers(labels, drawn).mean() == pytest.approx(0, abs=0.005)


def test_what_is_undefined_is_no_number_and_has_no_part_in_the_mean():
    some = counts_of(np.array([[2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    found = by_class(some)
    assert math.isnan(found[1].precision)
    assert found[1][1:] == (0, 0, 1)
    assert math.isnan(found[2].f1)
    assert MACRO_F1.of(some) == pytest.approx((4 / 5 + 0) / 2)
    nothing = counts_of(np.zeros((2, 2), dtype=int))
    assert math.isnan(MACRO_F1.of(nothing))
    assert math.isnan(ACCURACY.of(nothing))


def test_mcc_is_0_where_nothing_can_correlate_and_1_where_all_is_right():
    assert of(MCC, [0, 1, 1], [1, 1, 1]) == 0
    assert of(MCC, [1, 1], [1, 0]) == 0
    assert of(MCC, [0, 1, 2], [0, 1, 2]) == pytest.approx(1)
    assert of(MCC, [0, 1, 0, 1], [1, 0, 1, 0]) == pytest.approx(-1)
    # Weights of examples of one class that add up to 1 but for rounding.
    weights = np.full(10, 0.1)
    one_class = np.array([0.0, weights.sum()])
    assert MCC.of(Counts(one_class, one_class, one_class)) == 0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_with_two_classes_mcc_is_the_correlation(pairs):
    labels, answers = np.array(pairs, dtype=np.int64).T
    if labels.std() and answers.std():
        assert MCC.of_answers(labels, answers) == pytest.approx(np.corrcoef(labels, answers)[0, 1])


@given(PAIRS, st.permutations(range(4)))
def test_the_names_of_the_classes_do_not_matter(pairs, names):
    labels, answers = np.array(pairs).T
    names = np.array(names)
    for metric in METRICS.values():
        renamed = metric.of_answers(names[labels], names[answers])
        assert renamed == pytest.approx(metric.of_answers(labels, answers))
    one, other = confusion(labels, answers, 4), confusion(names[labels], names[answers], 4)
    supports = [by_class(counts_of(matrix)) for matrix in (one, other)]
    assert [supports[1][name].support for name in names] == [each.support for each in supports[0]]


def test_the_configuration_knows_every_metric_and_no_other():
    assert list(get_args(Metric)) == list(METRICS)
