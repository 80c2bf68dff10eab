"""Reports of classes, against numbers worked out by hand and against correlation on two classes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeops.measuring.classes import accuracy, by_class, confusion, macro_f1, mcc

# Rows: 4 of a (3 right), 3 of b (1 right, 2 called a), 3 of c (2 right, 1 called b).
MATRIX = np.array([[3, 1, 0], [2, 1, 0], [0, 1, 2]])
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
ANSWERS = [0, 0, 0, 1, 0, 0, 1, 1, 2, 2]


def of(labels, answers, classes=2):
    return confusion(np.array(labels), np.array(answers), classes)


def test_the_matrix_counts_labels_by_row_and_answers_by_column():
    assert of(LABELS, ANSWERS, 3).tolist() == MATRIX.tolist()
    assert of([0], [1], 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_numbers_worked_out_by_hand():
    a, b, c = by_class(MATRIX)
    assert a == (pytest.approx(3 / 5), pytest.approx(3 / 4), pytest.approx(2 / 3), 4)
    assert b == (pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3), 3)
    assert c == (pytest.approx(1), pytest.approx(2 / 3), pytest.approx(4 / 5), 3)
    assert accuracy(MATRIX) == pytest.approx(6 / 10)
    assert macro_f1(MATRIX) == pytest.approx((2 / 3 + 1 / 3 + 4 / 5) / 3)
    # Answers 5, 3, 2; labels 4, 3, 3: (6*10 - 35) / sqrt((100 - 38) * (100 - 34))
    assert mcc(MATRIX) == pytest.approx(25 / math.sqrt(62 * 66))


def test_what_is_undefined_is_no_number_and_has_no_part_in_the_mean():
    matrix = np.array([[2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = by_class(matrix)
    assert math.isnan(found[1].precision)
    assert found[1][1:] == (0, 0, 1)
    assert math.isnan(found[2].f1)
    assert macro_f1(matrix) == pytest.approx((4 / 5 + 0) / 2)
    assert math.isnan(macro_f1(np.zeros((2, 2), dtype=int)))
    assert math.isnan(accuracy(np.zeros((2, 2), dtype=int)))


def test_mcc_is_0_where_nothing_can_correlate_and_1_where_all_is_right():
    assert mcc(of([0, 1, 1], [1, 1, 1])) == 0
    assert mcc(of([1, 1], [1, 0])) == 0
    assert mcc(of([0, 1, 2], [0, 1, 2], 3)) == pytest.approx(1)
    assert mcc(of([0, 1, 0, 1], [1, 0, 1, 0])) == pytest.approx(-1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_with_two_classes_mcc_is_the_correlation(pairs):
    labels, answers = np.array(pairs, dtype=np.int64).T
    if labels.std() and answers.std():
        assert mcc(of(labels, answers)) == pytest.approx(np.corrcoef(labels, answers)[0, 1])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40),
    st.permutations(range(4)),
)
def test_the_names_of_the_classes_do_not_matter(pairs, names):
    labels, answers = np.array(pairs).T
    one = of(labels, answers, 4)
    other = of(np.array(names)[labels], np.array(names)[answers], 4)
    for metric in (accuracy, macro_f1, mcc):
        assert metric(one) == pytest.approx(metric(other))
    assert [by_class(other)[name].support for name in names] == [each.support for each in by_class(one)]
