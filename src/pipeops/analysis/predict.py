"""What every pipeline gives: measured where it was trained, predicted from O, D, P and E where it was not.

Time is never predicted from other times: what leaving at an exit costs is priced before anything is trained.
Accuracy follows equations 1 and 2 of Xin et al. 2022, at E's own answers; with Q, at E's int8 answers. Inputs
leave where they leave E, at the layer that corresponds.

Intervals are for one more training of the pipeline. Of a measured one they hold what seeds differ by
(Student's t); of a predicted one also the error of such predictions on what was measured beside the parts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
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
    "dataset", "pipeline", "inference", "threshold", "kind", "n_seeds",
    "accuracy", "accuracy_low", "accuracy_high", "time_relative", "time_low", "time_high", "time_ms",
    "parameters",
]  # fmt: skip
"""A row per trained pipeline, inference letters and threshold (NaN without exits). Accuracies are fractions,
times over O's, padded; ``time_ms`` is on the CPU of the prices. The ends of an interval are NaN with one seed
where nothing tells its width."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy and time over O's of one pipeline with some inference operators, by seed and threshold."""

    thresholds: list[float]
    accuracy: FloatArray
    """Shape (seeds, thresholds)."""
    time: FloatArray
    """Shape (seeds, thresholds)."""


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
        self.seeds: dict[str, list[int]] = {}
        for name, pipeline, seed in sorted(replays.runs):
            if name == dataset:
                self.seeds.setdefault(pipeline, []).append(seed)

    def measured(self, pipeline: Pipeline, inference: str) -> Curve:
        """The curve of a pipeline that was trained."""
        curves = [
            self.replays.per_example((self.dataset, str(pipeline), seed), inference).curve_by_threshold()
            for seed in self.seeds[str(pipeline)]
        ]
        time, accuracy = (np.array(values) for values in zip(*curves, strict=True))
        return Curve(thresholds=self._thresholds(str(pipeline)), accuracy=accuracy, time=time)

    def missing(self, pipeline: Pipeline) -> list[str]:
        """The trained parts without which a pipeline cannot be predicted; C only is known when trained."""
        if not set(pipeline.operators) <= set("ODPE"):
            return [str(pipeline)]
        parts = ["O", *(pipeline.operators if pipeline.operators != "O" else "")]
        return [part for part in parts if part not in self.seeds]

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
        parts = ["O", *(part for part in "DPE" if part in pipeline.operators)]
        seeds = sorted(set.intersection(*(set(self.seeds[part]) for part in parts)))
        if not seeds:
            raise PipeOpsError(
                f"{pipeline}: no seed has all of {', '.join(parts)} on {self.dataset}; add one"
            )
        curves = [self._predicted(pipeline, inference, seed) for seed in seeds]
        time, accuracy = (np.array(values) for values in zip(*curves, strict=True))
        with_exits = "E" if pipeline.has_exits else "O"
        return Curve(thresholds=self._thresholds(with_exits), accuracy=accuracy, time=time)

    def _predicted(self, pipeline: Pipeline, inference: str, seed: int) -> tuple[FloatArray, FloatArray]:
        """Time and accuracy at every threshold."""
        base = "E" if pipeline.has_exits else "O"
        run = (self.dataset, base, seed)
        known, exits = self.replays.runs[run], self.replays.leaving(run, inference)
        prices, rows = self.prices[pipeline.operators], np.arange(exits.shape[1])
        layers = np.array(known.shape.exit_layers)[exits]
        corresponding = -(-layers * prices.shape.num_layers // known.shape.num_layers)
        at = np.searchsorted(prices.shape.exit_layers, corresponding)
        lengths = known.answers.lengths
        run_as = lengths if "L" in inference else np.full_like(lengths, prices.max_length)
        time = prices.costs[inference].at(run_as)[rows, at].mean(axis=1)
        accuracy = estimate_accuracy(
            known.variants[inference].correct[rows, exits].mean(axis=1),
            self._full_accuracy("O", seed),
            accuracy_d=self._full_accuracy("D", seed) if "D" in pipeline.operators else None,
            accuracy_p=self._full_accuracy("P", seed) if "P" in pipeline.operators else None,
        )
        return time, accuracy

    def _full_accuracy(self, pipeline: str, seed: int) -> float:
        return float(self.replays.runs[self.dataset, pipeline, seed].variants[""].correct[:, -1].mean())

    def _thresholds(self, pipeline: str) -> list[float]:
        return self.replays.thresholds_of((self.dataset, pipeline, self.seeds[pipeline][0]))

    def errors(self) -> tuple[float, float]:
        """How far predictions were off where they can be checked: root mean squares over all points.

        Returns:
            Of accuracy (a fraction) and of time (relative), over every measured pipeline of two or more
            operators, each mean of seeds a point; NaN where there is none.
        """
        accuracy, time = [np.empty(0)], [np.empty(0)]
        for name in self.seeds:
            pipeline = Pipeline(name)
            if len(pipeline.operators) < 2 or self.missing(pipeline):
                continue
            for inference in INFERENCE:
                known, guessed = self.measured(pipeline, inference), self.predicted(pipeline, inference)
                shared = np.isin(guessed.thresholds, known.thresholds) | np.isnan(guessed.thresholds)
                accuracy.append(guessed.accuracy.mean(axis=0)[shared] - known.accuracy.mean(axis=0))
                time.append(guessed.time.mean(axis=0)[shared] / known.time.mean(axis=0) - 1)
        found = (np.concatenate(values) for values in (accuracy, time))
        of_accuracy, of_time = (math.sqrt((v**2).mean()) if v.size else math.nan for v in found)
        return of_accuracy, of_time


def predict(
    dataset: str, replays: Replays, prices: Mapping[str, Prices], pipelines: Sequence[Pipeline]
) -> pd.DataFrame:
    """Tabulate every pipeline with every inference operator, measured or predicted.

    Args:
        dataset: whose.
        replays: the runs that exist.
        prices: by set of operators.
        pipelines: trained ones. Those that can be neither measured nor predicted are left out.

    Returns:
        Rows with ``COLUMNS``.

    Raises:
        PipeOpsError: nothing can be said of any of them: what is missing is named.
    """
    known = Predictor(dataset, replays, prices)
    error, time_error = known.errors()
    spread = _pooled_spread(known)
    tables = []
    for pipeline in pipelines:
        for inference in INFERENCE:
            if str(pipeline) in known.seeds:
                kind, curve, off, time_off = MEASURED, known.measured(pipeline, inference), 0.0, 0.0
            elif pipeline.operators in prices and not known.missing(pipeline):
                kind, curve = PREDICTED, known.predicted(pipeline, inference)
                off, time_off = error, time_error
            else:
                continue
            tables.append(
                _with_intervals(curve, spread, off, time_off).assign(
                    dataset=dataset,
                    pipeline=str(pipeline),
                    inference=inference,
                    kind=kind,
                    parameters=prices[pipeline.operators].shape.parameters,
                )
            )
    if not tables:
        wanted = known.missing(Pipeline("DPE"))
        raise PipeOpsError(f"{dataset}: too few runs to predict from; train {', '.join(wanted)} first")
    table = pd.concat(tables, ignore_index=True)
    original_ms = next(iter(prices.values())).original_ms
    return table.assign(time_ms=table["time_relative"] * original_ms)[COLUMNS]


def _with_intervals(curve: Curve, spread: float, off: float, time_off: float) -> pd.DataFrame:
    seeds = len(curve.accuracy)
    accuracy, time = curve.accuracy.mean(axis=0), curve.time.mean(axis=0)
    half = np.hypot(_half_width(curve.accuracy, spread), _normal(off))
    time_half = np.hypot(_half_width(curve.time, math.nan), _normal(time_off) * time)
    return pd.DataFrame(
        {
            "threshold": curve.thresholds,
            "n_seeds": seeds,
            "accuracy": accuracy,
            "accuracy_low": np.clip(accuracy - half, 0, 1),
            "accuracy_high": np.clip(accuracy + half, 0, 1),
            "time_relative": time,
            "time_low": np.maximum(time - time_half, 0),
            "time_high": time + time_half,
        }
    )


def _half_width(values: FloatArray, spread: float) -> FloatArray:
    """Half the interval of one more seed, from those there are, shape (points,); of one by ``spread``."""
    seeds = len(values)
    if seeds == 1:
        return np.full(values.shape[1], _normal(spread))
    quantile = stdtrit(seeds - 1, (1 + COVERAGE) / 2)
    return quantile * values.std(axis=0, ddof=1) * math.sqrt(1 + 1 / seeds)


def _normal(sd: float) -> float:
    return float(-stdtrit(1e9, (1 - COVERAGE) / 2)) * sd


def _pooled_spread(known: Predictor) -> float:
    """SD between seeds, pooled over the pipelines that have several; NaN without any."""
    variances = [
        known.measured(Pipeline(name), inference).accuracy.var(axis=0, ddof=1).mean()
        for name, seeds in known.seeds.items()
        if len(seeds) > 1
        for inference in INFERENCE
    ]
    return math.sqrt(float(np.mean(variances))) if variances else math.nan
