"""How good answers are, class by class: everything follows from the confusion matrix.

Numbers that are undefined, such as the precision of a class that is never answered, are NaN.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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


def confusion(label_ids: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count examples by their class (rows) and by the answer (columns), shape (classes, classes).

    Args:
        label_ids: the right classes, shape (examples,).
        answers: the classes that a model gives, shape (examples,).
        classes: how many there are.
    """
    return np.bincount(label_ids * classes + answers, minlength=classes**2).reshape(classes, classes)


def accuracy(matrix: NDArray[np.int64]) -> float:
    """Part of the examples that are answered rightly."""
    return float(_ratio(np.trace(matrix), matrix.sum()))


def by_class(matrix: NDArray[np.int64]) -> list[OfClass]:
    """Precision, recall, F1 and support of every class."""
    right, answered, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    columns = (_ratio(right, answered), _ratio(right, support), _ratio(2 * right, answered + support))
    return [
        OfClass(float(precision), float(recall), float(f1), int(count))
        for precision, recall, f1, count in zip(*columns, support, strict=True)
    ]


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """Mean F1 over the classes, each counted once; a class neither there nor answered has no part in it."""
    scores = [of.f1 for of in by_class(matrix) if not np.isnan(of.f1)]
    return float(np.mean(scores)) if scores else float("nan")


def mcc(matrix: NDArray[np.int64]) -> float:
    """Matthews' correlation coefficient for several classes (Gorodkin 2004, R_K), -1 to 1.

    0 where all examples have one class or all answers are one, as for answers by chance.
    """
    counts = matrix.astype(np.float64)
    total, answered, support = counts.sum(), counts.sum(axis=0), counts.sum(axis=1)
    covariance = np.trace(counts) * total - answered @ support
    variances = (total**2 - answered @ answered) * (total**2 - support @ support)
    return float(covariance / np.sqrt(variances)) if variances else 0.0


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)
