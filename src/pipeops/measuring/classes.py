"""How good answers are: the metrics that a study may use, and a report class by class.

Everything follows from three counts of every class. Numbers that are undefined, such as the precision of a
class that is never answered, are NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_NOTHING = 1e-12  # of a variance over its largest value: rounding of counts that are weighted


class Counts(NamedTuple):
    """What every metric follows from, each of shape (..., classes), or one that broadcasts to it.

    Counts of examples; or sums of their weights, whatever their total.
    """

    right: NDArray
    """Examples of the class that are answered so."""
    answered: NDArray
    """Examples that are answered with the class."""
    support: NDArray
    """Examples of the class."""


class OfClass(NamedTuple):
    """How well one class is found."""

    precision: float
    """Part of the answers with this class that are right; NaN where there are none."""
    recall: float
    """Part of the examples of this class that are answered so; NaN where there are none."""
    f1: float
    """Harmonic mean of both; NaN for a class that is neither there nor answered."""
    support: int
    """Examples of this class."""


@dataclass(frozen=True)
class Metric:
    """What says how good answers are: one number, 1 where all are right."""

    name: str
    """In the configuration and in tables."""
    title: str
    """As people write it."""
    hub: str
    """As model hubs call it."""
    least: float
    """The smallest value that it can have."""
    of: Callable[[Counts], FloatArray]
    """From counts of shape (..., classes), the value of shape (...)."""

    def of_answers(self, label_ids: NDArray[np.int64], answers: NDArray[np.int64]) -> FloatArray:
        """The value of some answers.

        Args:
            label_ids: the right classes, shape (examples,).
            answers: the classes that models give, shape (..., examples).

        Returns:
            Shape (...).
        """
        return self.of(counts(label_ids, answers))


def counts(label_ids: NDArray[np.int64], answers: NDArray[np.int64]) -> Counts:
    """Count rightly answered, answered and all examples of every class, up to the last that occurs.

    Args:
        label_ids: the right classes, shape (examples,).
        answers: the classes that models give, shape (..., examples).
    """
    classes = int(max(label_ids.max(initial=0), answers.max(initial=0))) + 1
    shape = (*answers.shape[:-1], classes)
    rows = answers.reshape(-1, len(label_ids))
    places = rows + classes * np.arange(len(rows))[:, np.newaxis]
    right, answered = (
        np.bincount(found.ravel(), minlength=len(rows) * classes).reshape(shape)
        for found in (places[rows == label_ids], places)
    )
    return Counts(right, answered, np.bincount(label_ids, minlength=classes))


def confusion(label_ids: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count examples by their class (rows) and by the answer (columns), shape (classes, classes).

    Args:
        label_ids: the right classes, shape (examples,).
        answers: the classes that a model gives, shape (examples,).
        classes: how many there are.
    """
    return np.bincount(label_ids * classes + answers, minlength=classes**2).reshape(classes, classes)


def counts_of(matrix: NDArray[np.int64]) -> Counts:
    """The counts of one confusion matrix."""
    return Counts(np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1))


def by_class(of: Counts) -> list[OfClass]:
    """Precision, recall, F1 and support of every class, each count of shape (classes,)."""
    columns = (_ratio(of.right, of.answered), _ratio(of.right, of.support), _f1(of))
    return [
        OfClass(float(precision), float(recall), float(f1), int(count))
        for precision, recall, f1, count in zip(*columns, of.support, strict=True)
    ]


def _accuracy(of: Counts) -> FloatArray:
    return _ratio(of.right.sum(axis=-1), of.support.sum(axis=-1))


def _macro_f1(of: Counts) -> FloatArray:
    f1 = _f1(of)
    known = ~np.isnan(f1)
    return _ratio(np.where(known, f1, 0).sum(axis=-1), known.sum(axis=-1))


def _mcc(of: Counts) -> FloatArray:
    total = of.support.sum(axis=-1, dtype=np.float64)
    answered, support = (count / total[..., np.newaxis] for count in (of.answered, of.support))
    covariance = of.right.sum(axis=-1) / total - (answered * support).sum(axis=-1)
    variances = [1 - (part**2).sum(axis=-1) for part in (answered, support)]
    product = np.where(np.minimum(*variances) > _NOTHING, variances[0] * variances[1], 0)
    correlation = np.divide(covariance, np.sqrt(product), out=np.zeros_like(product), where=product > 0)
    return np.clip(correlation, -1, 1)


def _f1(of: Counts) -> FloatArray:
    return _ratio(2 * of.right, of.answered + of.support)


def _ratio(part: NDArray, whole: NDArray) -> FloatArray:
    """NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


ACCURACY = Metric("accuracy", "accuracy", "accuracy", 0, _accuracy)
"""Part of the examples that are answered rightly."""
MACRO_F1 = Metric("macro_f1", "macro-F1", "f1", 0, _macro_f1)
"""Mean F1 over the classes, each counted once; a class neither there nor answered has no part in it."""
MCC = Metric("mcc", "MCC", "matthews_correlation", -1, _mcc)
"""Matthews' correlation coefficient for several classes (Gorodkin 2004, R_K), -1 to 1.

0 where all examples have one class or all answers are one, as for answers by chance.
"""
METRICS = {metric.name: metric for metric in (ACCURACY, MACRO_F1, MCC)}
"""By the names that ``tasks`` knows (``settings.Metric``)."""
