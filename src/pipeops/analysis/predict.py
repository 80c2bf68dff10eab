"""What every pipeline gives: measured where it was trained, predicted from O, V, D, P and E where it was not.

Time is never predicted from other times: what leaving at an exit costs is priced before anything is trained.
Accuracy follows equations 1 and 2 of Xin et al. 2022, at E's own answers; with Q, at E's int8 answers. Inputs
leave where they leave E, at the layer that corresponds. A task's other metric takes the place of accuracy.

Intervals are for one more training of the pipeline. Of a measured one they hold what seeds differ by
(Student's t). Of a predicted one they also hold the error of such predictions at the same threshold, where
it was measured. Each set of operators counts once, as its orderings share a prediction. So with few sets
that were checked, intervals are wide (Student's t again), and with none there is no interval.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from pipeops.analysis.cumulativeness import estimate_accuracy
from pipeops.analysis.curves import FloatArray
from pipeops.analysis.replays import Replays
from pipeops.errors import PipeOpsError
from pipeops.measuring.prices import Prices
from pipeops.pipeline import INFERENCE, Pipeline

COVERAGE = 0.9
"""Of the intervals."""
MEASURED, PREDICTED = "measured", "predicted"
COLUMNS = [
    "dataset", "metric", "pipeline", "inference", "threshold", "kind", "n_seeds",
    "accuracy", "accuracy_low", "accuracy_high", "time_relative", "time_low", "time_high", "time_ms",
    "parameters",
]  # fmt: skip
"""A row per trained pipeline, inference letters and threshold (NaN without exits). Accuracies are in the
task's metric, fractions; times are over O's, padded; ``time_ms`` is on the CPU of the prices, which are taken
as given. The ends of an interval are NaN where nothing tells its width: one seed, or no prediction that could
be checked."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy and time over O's of one pipeline with some inference operators, by seed and threshold."""

    thresholds: list[float]
    accuracy: FloatArray
    """Shape (seeds, thresholds)."""
    time: FloatArray
    """Shape (seeds, thresholds)."""


class Errors(NamedTuple):
    """How far predictions were off where they can be checked: at each threshold, shape (thresholds,).

    The last threshold is full depth, and there pipelines without exits count too.
    """

    accuracy: FloatArray
    """Root mean square over the sets of operators, a fraction; NaN where none was checked."""
    time: FloatArray
    """The same of the relative error."""
    sets: NDArray[np.int64]
    """How many sets were checked."""


class Predictor:
    """Answers and prices of one dataset, and what follows from them for pipelines that were not trained."""

    def __init__(self, dataset: str, replays: Replays, prices: Mapping[str, Prices]) -> None:
        """Take what was measured.

        Args:
            dataset: whose pipelines are asked about.
            replays: the runs that exist, of any number of pipelines and seeds.
            prices: by set of operators, such as ``DPE``; ``O`` for none.
        """
        self.dataset, self.replays, self.prices = dataset, replays, prices
        self.metric = replays.metric(dataset)
        self.seeds: dict[str, list[int]] = {}
        for name, pipeline, seed in sorted(replays.runs):
            if name == dataset:
                self.seeds.setdefault(pipeline, []).append(seed)
        self._measured: dict[tuple[str, str], Curve] = {}
        self._leaving: dict[tuple[str, int, bool], NDArray[np.int64]] = {}
        self._checked = self._off_by_set()

    def measured(self, pipeline: Pipeline, inference: str) -> Curve:
        """The curve of a pipeline that was trained."""
        key = str(pipeline), inference
        if key not in self._measured:
            self._replay(str(pipeline))
        return self._measured[key]

    def _replay(self, pipeline: str) -> None:
        """Measure a pipeline with all inference operators. L changes nothing of where inputs leave."""
        curves: dict[str, list[tuple[FloatArray, FloatArray]]] = {inference: [] for inference in INFERENCE}
        for seed in self.seeds[pipeline]:
            run = (self.dataset, pipeline, seed)
            exits = {letter: self.replays.leaving(run, letter) for letter in ("", "Q")}
            for inference, found in curves.items():
                left = exits["Q" if "Q" in inference else ""]
                found.append(self.replays.per_example(run, inference, exits=left).curve_by_threshold())
        for inference, found in curves.items():
            time, accuracy = (np.array(values) for values in zip(*found, strict=True))
            self._measured[pipeline, inference] = Curve(
                thresholds=self._thresholds(pipeline), accuracy=accuracy, time=time
            )

    def missing(self, pipeline: Pipeline) -> list[str]:
        """The trained parts without which a pipeline cannot be predicted; C only is known when trained."""
        if not set(pipeline.operators) <= set("OVDPE"):
            return [str(pipeline)]
        parts = ["O", *(pipeline.operators if pipeline.operators != "O" else "")]
        return [part for part in parts if part not in self.seeds]

    def predictable(self, pipeline: Pipeline) -> bool:
        """Whether some seed has all its parts, and its operators were priced."""
        return (
            not self.missing(pipeline) and pipeline.operators in self.prices and bool(self._seeds(pipeline))
        )

    def _seeds(self, pipeline: Pipeline) -> list[int]:
        """Those that all its parts have."""
        parts = {"O", *pipeline.operators}
        return sorted(set.intersection(*(set(self.seeds[part]) for part in parts)))

    def predicted(self, pipeline: Pipeline, inference: str) -> Curve:
        """The curve of a pipeline from those of its parts, for the seeds that all of them have.

        Raises:
            PipeOpsError: a part was not trained, no seed has all parts, or its operators were not priced.
        """
        if missing := self.missing(pipeline):
            raise PipeOpsError(
                f"{pipeline}: to predict it on {self.dataset}, train {', '.join(missing)} first"
            )
        if pipeline.operators not in self.prices:
            raise PipeOpsError(
                f"{pipeline}: {pipeline.operators} has no price on {self.dataset}; price it first"
            )
        seeds = self._seeds(pipeline)
        if not seeds:
            raise PipeOpsError(
                f"{pipeline}: no seed on {self.dataset} has O, {', '.join(pipeline.operators)}; add one"
            )
        curves = [self._predicted(pipeline, inference, seed) for seed in seeds]
        time, accuracy = (np.array(values) for values in zip(*curves, strict=True))
        thresholds = self._thresholds("E" if pipeline.has_exits else "O")
        if self.replays.confidence == "patience":
            # A model of fewer exits than E has fewer thresholds, and its are the first.
            exits = len(self.prices[pipeline.operators].shape.exit_layers)
            thresholds = [threshold for threshold in thresholds if not threshold > exits]
        points = len(thresholds)
        return Curve(thresholds=thresholds, accuracy=accuracy[:, :points], time=time[:, :points])

    def _predicted(self, pipeline: Pipeline, inference: str, seed: int) -> tuple[FloatArray, FloatArray]:
        """Time and accuracy at every threshold; the latter is within the metric's range."""
        base = "E" if pipeline.has_exits else "O"
        run = (self.dataset, base, seed)
        known, exits = self.replays.runs[run], self._exits(base, seed, inference)
        prices, rows = self.prices[pipeline.operators], np.arange(exits.shape[1])
        layers = np.array(known.shape.exit_layers)[exits]
        corresponding = -(-layers * prices.shape.num_layers // known.shape.num_layers)
        at = np.searchsorted(prices.shape.exit_layers, corresponding)
        cut_alike = (self.dataset, "V", seed) if pipeline.transformed else run
        lengths = self.replays.runs[cut_alike].answers.lengths
        run_as = lengths if "L" in inference else np.full_like(lengths, prices.max_length)
        time = prices.costs[inference].at(run_as)[rows, at].mean(axis=1)
        accuracy = estimate_accuracy(
            known.variants[inference].quality(exits),
            self._full_accuracy("O", seed),
            accuracy_d=self._full_accuracy("D", seed) if "D" in pipeline.operators else None,
            accuracy_p=self._full_accuracy("P", seed) if "P" in pipeline.operators else None,
            accuracy_v=self._full_accuracy("V", seed) if "V" in pipeline.operators else None,
        )
        # O may be below the part that it is scaled by.
        return time, accuracy.clip(self.metric.least, 1)

    def _exits(self, base: str, seed: int, inference: str) -> NDArray[np.int64]:
        """Where inputs leave a pipeline that others are predicted from, shape (thresholds, examples)."""
        key = base, seed, "Q" in inference
        if key not in self._leaving:
            self._leaving[key] = self.replays.leaving((self.dataset, base, seed), inference)
        return self._leaving[key]

    def _full_accuracy(self, pipeline: str, seed: int) -> float:
        variant = self.replays.runs[self.dataset, pipeline, seed].variants[""]
        return float(variant.metric.of_answers(variant.label_ids, variant.said[:, -1]))

    def _thresholds(self, pipeline: str) -> list[float]:
        return self.replays.thresholds_of((self.dataset, pipeline, self.seeds[pipeline][0]))

    def errors(self, *, but: str = "") -> Errors:
        """How far predictions were off where they can be checked.

        Args:
            but: a set of operators whose runs have no say.
        """
        grid = self._grid()
        found = [off for operators, off in self._checked.items() if operators != but]
        squares = np.array(found).reshape(-1, 2, len(grid))
        accuracy, time = np.sqrt(_mean_of_known(squares))
        return Errors(accuracy=accuracy, time=time, sets=np.isfinite(squares[:, 0]).sum(axis=0))

    def errors_at(self, curve: Curve, *, but: str = "") -> Errors:
        """The same at the thresholds of a curve; without exits, at full depth."""
        errors, places = self.errors(but=but), self._places(curve)
        return Errors(errors.accuracy[places], errors.time[places], errors.sets[places])

    def _grid(self) -> list[float]:
        """The thresholds at which predictions are made, the last of them at full depth."""
        return self._thresholds("E") if "E" in self.seeds else [math.nan]

    def _places(self, curve: Curve) -> NDArray[np.intp]:
        """Where on the grid the points of a curve are."""
        grid = np.array(self._grid())
        return np.searchsorted(grid, curve.thresholds).clip(max=len(grid) - 1)

    def _off_by_set(self) -> dict[str, FloatArray]:
        """By set of operators: mean squares of what accuracy and time are off, shape (2, grid).

        Means over orderings and inference operators, each mean of seeds a point; NaN where there is none.
        """
        grid, curves = self._grid(), dict[str, list[FloatArray]]()
        for pipeline in self._checkable():
            for inference in INFERENCE:
                known, guessed = self.measured(pipeline, inference), self.predicted(pipeline, inference)
                off = np.full((2, len(grid)), math.nan)
                off[:, self._places(known)] = (
                    guessed.accuracy.mean(axis=0) - known.accuracy.mean(axis=0),
                    guessed.time.mean(axis=0) / known.time.mean(axis=0) - 1,
                )
                curves.setdefault(pipeline.operators, []).append(off**2)
        return {operators: _mean_of_known(np.array(off)) for operators, off in curves.items()}

    def _checkable(self) -> Iterator[Pipeline]:
        """What was measured beside the parts and can be predicted from them."""
        for pipeline in map(Pipeline, self.seeds):
            if len(pipeline.operators) > 1 and self.predictable(pipeline):
                yield pipeline


def predict(
    dataset: str, replays: Replays, prices: Mapping[str, Prices], pipelines: Sequence[Pipeline]
) -> pd.DataFrame:
    """Tabulate every pipeline of a dataset with every inference operator; see :func:`tabulate`.

    Args:
        dataset: whose.
        replays: the runs that exist.
        prices: by set of operators.
        pipelines: trained ones.
    """
    return tabulate(Predictor(dataset, replays, prices), pipelines)


def tabulate(
    known: Predictor, pipelines: Sequence[Pipeline], *, measured: Collection[str] | None = None
) -> pd.DataFrame:
    """Tabulate every pipeline with every inference operator, measured or predicted.

    Args:
        known: what was measured of the dataset.
        pipelines: trained ones. Those that can be neither measured nor predicted are left out.
        measured: those that are taken as measured; None: all that have runs. The others are predicted. Runs
            that such a one has, and those of all orderings of its set, have no part in its interval.

    Returns:
        Rows with ``COLUMNS``.

    Raises:
        PipeOpsError: nothing can be said of any of them: what is missing is named.
    """
    dataset, prices = known.dataset, known.prices
    taken = [name for name in known.seeds if measured is None or name in measured]
    spread = _pooled_spread(known, taken)
    rows: list[dict[str, Any]] = []
    for pipeline in pipelines:
        name, operators = str(pipeline), pipeline.operators
        if name not in taken and not known.predictable(pipeline):
            continue
        for inference in INFERENCE:
            if name in taken:
                kind, curve, errors = MEASURED, known.measured(pipeline, inference), None
            else:
                kind, curve = PREDICTED, known.predicted(pipeline, inference)
                errors = known.errors_at(curve, but=operators if name in known.seeds else "")
            about = {
                "dataset": dataset,
                "metric": known.metric.name,
                "pipeline": name,
                "inference": inference,
                "kind": kind,
                "parameters": prices[operators].shape.parameters,
            }
            points = _with_intervals(curve, spread, errors, least=known.metric.least)
            for values in zip(*points.values(), strict=True):
                rows.append(about | dict(zip(points, values, strict=True)))
    if not rows:
        wanted = known.missing(Pipeline("DPE"))
        raise PipeOpsError(f"{dataset}: too few runs to predict from; train {', '.join(wanted)} first")
    table = pd.DataFrame(rows)
    original_ms = next(iter(prices.values())).original_ms
    return table.assign(time_ms=table["time_relative"] * original_ms)[COLUMNS]


class Spread(NamedTuple):
    """SD between seeds, pooled over the pipelines that have several; NaN without any."""

    accuracy: float
    """A fraction."""
    time: float
    """Relative, of models with exits: without, the time is the price."""
    degrees: int
    """Of freedom of the first: seeds beyond the first of each pipeline."""
    time_degrees: int
    """The same of those with exits."""


def _with_intervals(curve: Curve, spread: Spread, errors: Errors | None, *, least: float) -> dict[str, Any]:
    """Columns with a value per threshold; ``errors`` are those at its thresholds, None if it was measured.

    Accuracies are from ``least`` to 1.
    """
    accuracy, time = curve.accuracy.mean(axis=0), curve.time.mean(axis=0)
    time_spread = spread.time if len(curve.thresholds) > 1 else 0.0
    half = half_width(curve.accuracy, spread.accuracy, spread.degrees)
    time_half = half_width(curve.time, time_spread * time, spread.time_degrees)
    if errors is not None:
        half = np.hypot(half, error_width(errors.accuracy, errors.sets))
        time_half = np.hypot(time_half, error_width(errors.time, errors.sets) * time)
    columns = {
        "accuracy": accuracy,
        "accuracy_low": np.clip(accuracy - half, least, 1),
        "accuracy_high": np.clip(accuracy + half, least, 1),
        "time_relative": time,
        "time_low": np.maximum(time - time_half, 0),
        "time_high": time + time_half,
    }
    found: dict[str, Any] = {name: values.tolist() for name, values in columns.items()}
    seeds = [len(curve.accuracy)] * len(curve.thresholds)
    return {"threshold": curve.thresholds, "n_seeds": seeds} | found


def half_width(values: FloatArray, spread: ArrayLike, degrees: int) -> FloatArray:
    """Half the interval of one more seed, which differs from the mean by its own noise and by the mean's.

    Args:
        values: of the seeds that there are, shape (seeds, points).
        spread: SD that is taken where there is one seed.
        degrees: of freedom of that SD.

    Returns:
        Shape (points,).
    """
    seeds = len(values)
    if seeds > 1:
        spread, degrees = values.std(axis=0, ddof=1), seeds - 1
    # Without degrees of freedom the SD is unknown (NaN), or 0 as nothing varies.
    half = _quantile(max(degrees, 1)) * np.asarray(spread, float) * math.sqrt(1 + 1 / seeds)
    return np.broadcast_to(half, values.shape[1:])


def error_width(error: FloatArray, sets: NDArray[np.int64]) -> FloatArray:
    """Half the interval of a prediction's error, from the root mean square of so many others.

    NaN where there are none.
    """
    return np.array([_quantile(n) if n else math.nan for n in sets.tolist()]) * error


def _quantile(degrees: float) -> float:
    """Of Student's t, of the normal distribution if the degrees of freedom are infinite."""
    return float(stdtrit(min(degrees, 1e9), (1 + COVERAGE) / 2))


def _pooled_spread(known: Predictor, names: Sequence[str]) -> Spread:
    """What seeds differ by, over these measured pipelines."""
    curves = [
        known.measured(Pipeline(name), inference)
        for name in names
        if len(known.seeds[name]) > 1
        for inference in INFERENCE
    ]
    accuracy = [curve.accuracy.var(axis=0, ddof=1).mean() for curve in curves]
    time = [
        (curve.time.var(axis=0, ddof=1) / curve.time.mean(axis=0) ** 2).mean()
        for curve in curves
        if len(curve.thresholds) > 1
    ]
    of_accuracy, of_time = (math.sqrt(np.mean(values)) if values else math.nan for values in (accuracy, time))
    degrees, time_degrees = (
        sum(len(known.seeds[name]) - 1 for name in chosen)
        for chosen in (names, [name for name in names if Pipeline(name).has_exits])
    )
    return Spread(of_accuracy, of_time, degrees, time_degrees)


def _mean_of_known(values: FloatArray) -> FloatArray:
    """Mean over the first axis of what is no NaN; NaN where nothing is."""
    known = np.isfinite(values).sum(axis=0)
    sums = np.nansum(values, axis=0)
    return np.divide(sums, known, out=np.full_like(sums, math.nan), where=known > 0)
