"""Answers and prices of a study's runs: what its curves are made from, for analyses of single examples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeops.analysis.curves import TradeoffCurve
from pipeops.analysis.metrics import Metrics
from pipeops.analysis.resampling import PerExample
from pipeops.errors import PipeOpsError
from pipeops.measuring.answers import Answers, read_answers
from pipeops.measuring.classes import METRICS, Metric
from pipeops.measuring.policies import first_reached, scores, thresholds_of
from pipeops.measuring.prices import Prices, read_prices
from pipeops.measuring.replay import Replay
from pipeops.pipeline import Pipeline
from pipeops.settings import Confidence

Run = tuple[str, str, int]
"""Dataset, trained pipeline, seed."""


@dataclass(frozen=True, kw_only=True)
class Replays:
    """Every run's answers with its prices, and the rule by which inputs leave."""

    runs: Mapping[Run, Replay]
    confidence: Confidence
    thresholds: Sequence[float]
    patiences: Sequence[int] | None = None

    @classmethod
    def read(
        cls,
        answers: Iterable[Path],
        prices: Iterable[Path],
        *,
        metrics: Metrics,
        confidence: Confidence,
        thresholds: Sequence[float],
        patiences: Sequence[int] | None = None,
    ) -> Self:
        """Read ``{dataset}/{pipeline}/seed{seed}.parquet`` and ``{dataset}/{operators}.csv``.

        ``metrics`` names every dataset. The CPU of the prices is not looked at: the curves were made from
        them already.

        Raises:
            PipeOpsError: a file is absent, damaged, of another run than its path says, or answers other
                examples than the rest.
        """
        priced = [read_prices(path, this_cpu=False) for path in prices]
        return cls.join(
            answers,
            priced,
            metrics=metrics,
            confidence=confidence,
            thresholds=thresholds,
            patiences=patiences,
        )

    @classmethod
    def join(
        cls,
        answers: Iterable[Path],
        prices: Iterable[Prices],
        *,
        metrics: Metrics,
        confidence: Confidence,
        thresholds: Sequence[float],
        patiences: Sequence[int] | None = None,
    ) -> Self:
        """The same with prices that were read already."""
        priced = {(one.path.parts[-2], one.path.stem): one for one in prices}
        runs: dict[Run, Replay] = {}
        firsts: dict[tuple[str | bool, ...], Answers] = {}
        for path in answers:
            dataset, pipeline, seed = path.parts[-3], path.parts[-2], int(path.stem.removeprefix("seed"))
            parsed = Pipeline(pipeline)
            if (dataset, parsed.operators) not in priced:
                raise PipeOpsError(f"{path}: no prices of {parsed.operators} on {dataset}; price them first")
            said = read_answers(path, dataset=dataset, pipeline=pipeline, seed=seed)
            # V cuts some validation texts into other pieces.
            for among, field in (((dataset,), "label_ids"), ((dataset, parsed.transformed), "lengths")):
                first = firsts.setdefault(among, said)
                if not np.array_equal(getattr(said, field), getattr(first, field)):
                    raise PipeOpsError(
                        f"{path}: answers other examples than {first.path}; delete both and evaluate again"
                    )
            metric = METRICS[metrics[dataset]]
            runs[dataset, pipeline, seed] = Replay(said, priced[dataset, parsed.operators], metric)
        return cls(runs=runs, confidence=confidence, thresholds=thresholds, patiences=patiences)

    def thresholds_of(self, run: Run) -> list[float]:
        """The thresholds at which a run is replayed; NaN alone for a single exit."""
        return thresholds_of(
            self.confidence,
            exits=len(self.runs[run].shape.exit_layers),
            thresholds=self.thresholds,
            patiences=self.patiences,
        )

    def prices(self, dataset: str) -> dict[str, Prices]:
        """What was priced of a dataset's runs, by set of operators."""
        return {
            Pipeline(pipeline).operators: replay.prices
            for (name, pipeline, _), replay in self.runs.items()
            if name == dataset
        }

    def leaving(self, run: Run, inference: str = "") -> NDArray[np.int64]:
        """Index of the exit at which each example leaves, shape (thresholds, examples)."""
        sure = scores(self.runs[run].answers.of(inference), self.confidence)
        return first_reached(sure, self.thresholds_of(run))

    def per_example(
        self, run: Run, inference: str = "", *, exits: NDArray[np.int64] | None = None
    ) -> PerExample:
        """What a run answers to every example, and what that costs, at every threshold.

        Args:
            run: which.
            inference: its inference operators.
            exits: what ``leaving`` returns, where it is known.
        """
        exits = self.leaving(run, inference) if exits is None else exits
        return _per_example(self.runs[run], exits, inference)

    def priced_twice(self, run: Run) -> tuple[TradeoffCurve, TradeoffCurve]:
        """A run's curve with the prices of the first half of their rounds, and with those of the second."""
        replay, exits = self.runs[run], self.leaving(run)
        first, second = (
            _per_example(replace(replay, prices=replace(replay.prices, costs=half)), exits, "").curve()
            for half in replay.prices.halves
        )
        return first, second

    def metric(self, dataset: str) -> Metric:
        """What says how good answers on a dataset are."""
        return self._any_of(dataset).metric

    def n_examples(self, dataset: str) -> int:
        """Size of a dataset's validation split."""
        return len(self._any_of(dataset).answers.label_ids)

    def chance(self, dataset: str) -> float:
        """The metric of always answering the class that most validation examples have."""
        labels = self._any_of(dataset).answers.label_ids
        most_frequent = np.full_like(labels, np.bincount(labels).argmax())
        return float(self.metric(dataset).of_answers(labels, most_frequent))

    def _any_of(self, dataset: str) -> Replay:
        return next(replay for (name, *_), replay in self.runs.items() if name == dataset)


def _per_example(replay: Replay, exits: NDArray[np.int64], inference: str) -> PerExample:
    variant, rows = replay.variants[inference], np.arange(exits.shape[1])
    return PerExample(variant.at(exits), variant.label_ids, variant.time_relative[rows, exits], replay.metric)
