"""Tradeoff curves from answers and prices: every exit rule and threshold, without running any model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.errors import PipeOpsError
from pipeops.integrity import sealed
from pipeops.measuring.answers import Answers
from pipeops.measuring.classes import ACCURACY, Metric
from pipeops.measuring.policies import first_reached, leaving, scores, thresholds_of
from pipeops.measuring.prices import Prices
from pipeops.measuring.records import COLUMNS, EXIT_COLUMNS, files_of
from pipeops.models.shape import ModelShape
from pipeops.pipeline import INFERENCE
from pipeops.provenance import json_text
from pipeops.settings import Confidence


@dataclass(frozen=True)
class Replay:
    """One model's answers and what leaving at each of its exits costs.

    Raises:
        PipeOpsError: the prices are of another shape or of inputs of other lengths.
    """

    answers: Answers
    prices: Prices
    metric: Metric = ACCURACY
    """What says how good answers are: the task's."""

    def __post_init__(self) -> None:
        answers, prices = self.answers, self.prices
        again = "price this shape again, or evaluate the model that was priced"
        if differing := _first_difference(answers.shape, prices.shape):
            name, of_answers, of_prices = differing
            raise PipeOpsError(
                f"{prices.path}: prices of another shape than {answers.path}: {name} is {of_prices}, "
                f"there {of_answers}; {again}"
            )
        if answers.max_length != prices.max_length:
            raise PipeOpsError(
                f"{prices.path}: priced with max_length {prices.max_length}, {answers.path} has "
                f"{answers.max_length}; {again}"
            )
        measured, (shortest, longest) = prices.costs["L"].lengths, np.sort(answers.lengths)[[0, -1]]
        if shortest < measured[0] or longest > measured[-1]:
            raise PipeOpsError(
                f"{prices.path}: priced for inputs of {measured[0]} to {measured[-1]} tokens, {answers.path} "
                f"has {shortest} to {longest}; price again for these lengths"
            )

    @property
    def shape(self) -> ModelShape:
        """The model's."""
        return self.answers.shape

    @cached_property
    def variants(self) -> dict[str, "Variant"]:
        """What every example gets and costs at every exit, by the letters of the inference operators."""
        return {inference: self._variant(inference) for inference in INFERENCE}

    def _variant(self, inference: str) -> "Variant":
        answers = self.answers
        run_as = answers.lengths if "L" in inference else np.full_like(answers.lengths, answers.max_length)
        lengths, place = np.unique(run_as, return_inverse=True)
        return Variant(
            said=answers.of(inference).argmax(axis=-1),
            label_ids=answers.label_ids,
            metric=self.metric,
            time_relative=self.prices.costs[inference].at(lengths)[place],
            shape=self.shape,
            lengths=run_as,
        )

    def leaving(self, inference: str, confidence: Confidence, threshold: float) -> NDArray[np.int64]:
        """Index of the exit at which each example leaves, shape (examples,)."""
        return leaving(self.answers.of(inference), confidence, threshold)

    def points(
        self, inference: str, confidence: Confidence, thresholds: Sequence[float]
    ) -> list[dict[str, Any]]:
        """Rows of ``COLUMNS``: each threshold, used at every exit, over all examples.

        Parameters are all of the model's, and over O's.
        """
        sure = scores(self.answers.of(inference), confidence)
        layers, parameters = np.array(self.shape.exit_layers), self.shape.parameters
        rows = []
        for threshold in thresholds:
            exits = first_reached(sure, threshold)
            at = {"threshold": threshold, "mean_exit_layer": layers[exits].mean()}
            rows.append(self._point(inference, exits, parameters) | at)
        return rows

    def exit_points(self, inference: str) -> list[dict[str, Any]]:
        """Rows of ``EXIT_COLUMNS``: *every* example leaves at the same exit, exit by exit.

        Parameters are those of a model that ends at this exit.
        """
        return [
            self._point(inference, np.full(len(self.answers.lengths), index), parameters)
            | {"exit_layer": layer}
            for index, (layer, parameters) in enumerate(
                zip(self.shape.exit_layers, self.shape.exit_parameters, strict=True)
            )
        ]

    def _point(self, inference: str, exits: NDArray[np.int64], parameters: int) -> dict[str, Any]:
        """The metric and mean cost when example i leaves at exit ``exits[i]``, in the columns of the CSVs.

        Time, operations and parameters are also given over those of O, for an input of ``max_length`` tokens.
        """
        variant, original = self.variants[inference], self.prices.original
        accuracy, (relative, flops) = float(variant.quality(exits)), variant.costs(exits)
        return {
            "inference": inference,
            "metric": self.metric.name,
            "accuracy": accuracy,
            "time_ms": relative * self.prices.original_ms,
            "time_relative": relative,
            "flops": flops,
            "flops_relative": flops / original.flops(self.answers.max_length)[-1],
            "parameters": parameters,
            "parameters_relative": parameters / original.parameters,
            "kernels": self.prices.record["int8_kernels"] if "Q" in inference else "fp32",
        }


@dataclass(frozen=True)
class Variant:
    """What every example gets and costs at every exit, with some inference operators."""

    said: NDArray[np.int64]
    """The class that is answered, shape (examples, exits), as of times."""
    label_ids: NDArray[np.int64]
    """The right classes, shape (examples,)."""
    metric: Metric
    time_relative: NDArray[np.float64]
    """Time over O's."""
    shape: ModelShape
    """The model's."""
    lengths: NDArray[np.int64]
    """Tokens that each example is run with, shape (examples,)."""

    @cached_property
    def flops(self) -> NDArray[np.int64]:
        """Floating-point operations, shape (examples, exits)."""
        lengths, place = np.unique(self.lengths, return_inverse=True)
        return np.array([self.shape.flops(length) for length in lengths.tolist()])[place]

    def at(self, exits: NDArray[np.int64]) -> NDArray[np.int64]:
        """The answers when example i leaves at exit ``exits[..., i]``, of the same shape."""
        return self.said[np.arange(len(self.said)), exits]

    def quality(self, exits: NDArray[np.int64]) -> NDArray[np.float64]:
        """The metric when example i leaves at exit ``exits[..., i]``, shape (...)."""
        return self.metric.of_answers(self.label_ids, self.at(exits))

    def costs(self, exits: NDArray[np.int64]) -> tuple[float, float]:
        """Mean time over O's and operations when example i leaves at exit ``exits[i]``."""
        rows = np.arange(len(exits))
        return float(self.time_relative[rows, exits].mean()), float(self.flops[rows, exits].mean())


def curves(
    answers: Answers,
    prices: Prices,
    output: Path,
    *,
    confidence: Confidence,
    thresholds: Sequence[float],
    patiences: Sequence[int] | None = None,
    metric: Metric = ACCURACY,
) -> None:
    """Write a model's tradeoff curve: the CSV with ``COLUMNS``, beside it ``.exits.csv`` and a JSON.

    Args:
        answers: of the model.
        prices: of its shape.
        output: the CSV; for each of ``INFERENCE`` one row per threshold, or a single one without a threshold
            for a single exit.
        confidence: what thresholds are compared with.
        thresholds: confidences, used unless ``confidence`` is ``patience``.
        patiences: used if it is; None: all from 1 to the number of exits.
        metric: what says how good answers are.

    Raises:
        PipeOpsError: answers and prices are not of one shape, or a patience is larger than the exits.
    """
    replay = Replay(answers, prices, metric)
    used = thresholds_of(
        confidence, exits=len(replay.shape.exit_layers), thresholds=thresholds, patiences=patiences
    )
    rows = [row for inference in INFERENCE for row in replay.points(inference, confidence, used)]
    exit_rows = [row for inference in INFERENCE for row in replay.exit_points(inference)]
    about = {
        "rows": len(rows),
        "dataset": answers.record["dataset"],
        "pipeline": answers.record["pipeline"],
        "confidence": confidence if replay.shape.has_exits else None,
        "validation_examples": len(answers.lengths),
        "max_length": answers.max_length,
        "exit_layers": replay.shape.exit_layers,
        "original_ms": prices.original_ms,
        "answers": answers.record["provenance"],
    }
    parameters = {
        "seed": answers.record["seed"],
        "thresholds": None if np.isnan(used[0]) else used,
        "prices": prices.record["parameters"],
    }
    # Times are the prices', and so is the machine.
    record = dict(prices.record) | about | {"parameters": parameters}
    with sealed(*files_of(output)) as (path, exits, details):
        pd.DataFrame(rows)[COLUMNS].to_csv(path, index=False)
        pd.DataFrame(exit_rows)[EXIT_COLUMNS].to_csv(exits, index=False)
        details.write_text(json_text(record))


def _first_difference(one: ModelShape, other: ModelShape) -> tuple[str, Any, Any] | None:
    names = ModelShape.__dataclass_fields__
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in names)
    return next((pair for pair in pairs if pair[1] != pair[2]), None)
