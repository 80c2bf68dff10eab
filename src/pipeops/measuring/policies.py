"""Where inputs leave a model with exits, replayed from the logits of every exit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeops.errors import PipeOpsError
from pipeops.settings import Confidence


def scores(logits: NDArray[np.float32], confidence: Confidence) -> NDArray[np.float32]:
    """What each exit's threshold is compared with, as the exported graph computes it.

    Args:
        logits: shape (examples, exits, labels).
        confidence: ``max_probability``: the largest class probability; ``entropy``: exp(-entropy);
            ``patience``: how many exits in a row, this one included, answer the same class.

    Returns:
        Shape (examples, exits).
    """
    if confidence == "patience":
        return agreeing(logits.argmax(axis=-1))
    # In double precision: rounded to single, it is then the number nearest to the true one.
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    probabilities = np.exp(logarithms)
    if confidence == "entropy":
        sure = np.exp((probabilities * logarithms).sum(axis=-1))
    else:
        sure = probabilities.max(axis=-1)
    return np.minimum(sure, 1).astype(np.float32)


def agreeing(classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """At each exit, the number of exits in a row, this one included and last, with the same class.

    PABEE (Zhou et al. 2020) counts how often an answer is confirmed, which is one less.

    Args:
        classes: answers, shape (examples, exits).
    """
    rows = np.ones(classes.shape, dtype=np.float32)
    for index in range(1, classes.shape[1]):
        confirmed = classes[:, index] == classes[:, index - 1]
        rows[:, index] = np.where(confirmed, rows[:, index - 1] + 1, 1)
    return rows


def leaving(logits: NDArray[np.float32], confidence: Confidence, threshold: float) -> NDArray[np.int64]:
    """Index of the exit at which each example leaves, with one threshold for all exits, shape (examples,)."""
    return first_reached(scores(logits, confidence), threshold)


def first_reached(scores: NDArray[np.float32], threshold: ArrayLike) -> NDArray[np.int64]:
    """Index of the first exit whose score is at least the threshold, else of the last.

    Args:
        scores: shape (examples, exits).
        threshold: one, or several, shape (...).

    Returns:
        Shape (..., examples).
    """
    wanted = np.asarray(threshold, np.float32)[..., np.newaxis]
    passed = np.zeros((*wanted.shape[:-1], len(scores)), dtype=np.int64)
    for surest_yet in np.maximum.accumulate(scores[:, :-1], axis=1).T:
        passed += surest_yet < wanted
    return passed


def thresholds_of(
    confidence: Confidence, *, exits: int, thresholds: Sequence[float], patiences: Sequence[int] | None
) -> list[float]:
    """The thresholds to replay for a model with this number of exits; NaN alone for a single exit.

    Args:
        confidence: what they are compared with.
        exits: how many the model has.
        thresholds: confidences, used unless ``confidence`` is ``patience``.
        patiences: used if it is; None: every one from 1, which leaves at the first exit, to ``exits``.

    Raises:
        PipeOpsError: a patience that no input can reach, or below 1.
    """
    if exits == 1:
        return [float("nan")]
    if confidence != "patience":
        return list(map(float, thresholds))
    for patience in patiences or []:
        if not 1 <= patience <= exits:
            raise PipeOpsError(
                f"patiences: {patience}, but a model here has {exits} exits; give numbers from 1 to {exits}"
            )
    return list(map(float, range(1, exits + 1) if patiences is None else patiences))
