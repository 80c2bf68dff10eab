"""Predictions and recommendations of a study, from whatever of it exists: prices, answers, checkpoints."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from pipeops.analysis.curves import best_within
from pipeops.analysis.metrics import capitalised, quality
from pipeops.analysis.predict import MEASURED, Predictor, predict
from pipeops.analysis.recommend import (
    MAX_DROP,
    QUANTISED,
    Budget,
    candidates,
    name_of,
    recommend,
    refusals,
)
from pipeops.analysis.replays import Replays
from pipeops.errors import PipeOpsError
from pipeops.measuring.prices import Prices, read_prices
from pipeops.pipeline import Pipeline, closure, trained_pipelines
from pipeops.reading import reading
from pipeops.study import jobs
from pipeops.study.config import Config, read_study
from pipeops.text import markdown_table, nearest

BUDGETS = {"1": 1.0, "1/2": 1 / 2, "1/4": 1 / 4, "1/8": 1 / 8, "1/16": 1 / 16}
"""Times over O's at which predictions are printed."""
RUNNERS_UP = 5
_SAME = 1e-9  # of numbers that are equal but for rounding


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked about: a dataset of a study."""

    study: Config
    dataset: str
    configfiles: Sequence[Path] = ()
    """Where the study was read from, for the commands that go on with it."""

    @classmethod
    def read(cls, configfiles: Sequence[Path], dataset: str | None) -> Self:
        """Read the study; the dataset may be left out where it has only one.

        Raises:
            PipeOpsError: the configuration is wrong, the study has several datasets and none is named, or it
                does not have this one.
        """
        study = read_study(configfiles)
        if dataset is None and len(study.datasets) == 1:
            dataset = study.datasets[0]
        if dataset not in study.datasets:
            what = (
                "not named"
                if dataset is None
                else f"'{dataset}' is not in the study{nearest(dataset, study.datasets)}"
            )
            raise PipeOpsError(f"--dataset: {what}; name one of {', '.join(study.datasets)}")
        return cls(study=study, dataset=dataset, configfiles=configfiles)

    @property
    def metrics(self) -> dict[str, str]:
        """The dataset's metric, as ``Replays.read`` takes it."""
        return {self.dataset: self.study.metric(self.dataset)}

    @property
    def quality(self) -> str:
        """The title of this metric."""
        return quality(self.metrics.values())

    def command(self, *targets: str, cores: int = 2) -> list[str]:
        """The command that makes these files of the study."""
        options = ["--configfile", *map(str, self.configfiles)] if self.configfiles else []
        return ["snakemake", "--cores", str(cores), *options, "--", *targets]

    def answers_of(self, pipeline: Pipeline | str, seed: int) -> str:
        """Where the workflow puts a pipeline's answers."""
        results = self.study.pathvars.results
        return f"{results}/answers/{self.dataset}/{pipeline}/seed{seed}.parquet"


def predictions(asked: Asked) -> pd.DataFrame:
    """Every valid pipeline of a dataset that can be measured or predicted; see ``predict.predict``.

    Those with V only where the study has any.

    Raises:
        PipeOpsError: there are no prices, or too few runs; the command that makes them is named.
    """
    study, dataset = asked.study, asked.dataset
    results = study.pathvars.results
    measured_in, priced_in = Path(study.answers or results), Path(study.priced_in or results)
    pipelines = [one for one in map(Pipeline, trained_pipelines()) if study.transformed >= one.transformed]
    prices = _prices(priced_in / "prices" / dataset, pipelines, asked)
    found = {
        (str(pipeline), seed): path
        for pipeline in pipelines
        for seed in study.seeds
        if (path := measured_in / f"answers/{dataset}/{pipeline}/seed{seed}.parquet").is_file()
        and pipeline.operators in prices
    }
    _refuse_too_few({name for name, _ in found}, asked)
    replays = Replays.join(
        found.values(), prices.values(), metrics=asked.metrics, **jobs.rule_of_exits(study)
    )
    return predict(dataset, replays, prices, pipelines)


def predictions_text(asked: Asked, table: pd.DataFrame) -> str:
    """A line per pipeline: the accuracy, or other metric, that fractions of O's time afford."""
    rows = []
    first = table.drop_duplicates(["pipeline", "inference"])
    by_name: Any = table.groupby(["pipeline", "inference"], sort=False)
    curves = dict(list(by_name))
    for names, row in _alike(first):
        points = curves[row["pipeline"], row["inference"]]
        cells = []
        for budget in BUDGETS.values():
            at = best_within(points["time_relative"], points["accuracy"], budget)
            cells.append("-" if at is None else _accuracy(points.iloc[at]))
        rows.append([", ".join(names), f"{row['kind']}, {row['n_seeds']}", *cells])
    listed = markdown_table(["pipeline", "seeds", *(f"t = {name}" for name in BUDGETS)], rows)
    what = f"{capitalised(asked.quality)} within a time t of O's, at the best threshold, with 90% intervals:"
    return "\n\n".join(filter(None, [what, listed, _left_out(asked, table)]))


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One answer, the runners-up, and what was refused."""

    asked: Asked
    budget: Budget
    ranked: pd.DataFrame
    """As ``recommend.recommend`` returns them, best first."""
    refused: pd.DataFrame
    """As ``recommend.candidates`` returns them."""
    table: pd.DataFrame
    """All predictions."""

    @property
    def best(self) -> pd.Series:
        """The answer."""
        return self.ranked.iloc[0]

    def text(self) -> str:
        """The answer first, then the runners-up, and what the gate refused of them."""
        best = self.best
        (names, _), *others = _alike(self.ranked)
        lines = [
            f"Take {name_of(best)}{_at(best)}: {_accuracy(best)} {self.asked.quality} ({best['kind']}) "
            f"in {_time(best)} an input, {best['size_mb']:.3g} MB.",
            _still_to_train(self.asked, Pipeline(best["pipeline"])),
        ]
        if len(names) > 1:
            lines.append(f"The prediction is the same for {', '.join(names[1:])}.")
        if pd.isna(best["accuracy_low"]):
            lines.append("It has no interval: too few seeds, or no such prediction was checked yet.")
        parts = ["\n".join(lines)]
        if others:
            rows = [
                [
                    ", ".join(names) + _at(row),
                    row["kind"],
                    _accuracy(row),
                    _time(row),
                    f"{row['size_mb']:.3g}",
                ]
                for names, row in others[:RUNNERS_UP]
            ]
            header = ["runner-up", "", f"{self.asked.quality} (90% interval)", "time", "MB"]
            parts.append(markdown_table(header, rows))
        return "\n\n".join([*parts, *filter(None, [self._gate(), _left_out(self.asked, self.table)])])

    def _gate(self) -> str:
        """What was refused of the answer's pipeline, and of how many others there is more."""
        best, refused = self.best, self.refused
        related = (refused["inference"] == best["inference"]) | (refused["what"] == QUANTISED)
        ours = (refused["pipeline"] == best["pipeline"]) & related
        lines = refusals(refused[ours], self.table, max_drop=self._max_drop)
        if others := refused[~ours].groupby(["pipeline", "inference"]).ngroups:
            lines.append(f"The gate refused thresholds of {others} other pipelines; --json lists them.")
        return "\n".join(lines)

    @property
    def _max_drop(self) -> float:
        return MAX_DROP if self.budget.max_drop is None else self.budget.max_drop

    def document(self) -> dict[str, Any]:
        """The same for programs; accuracies are in the metric, fractions, what is not known is null."""
        answer, *others = _records(self.ranked)
        steps = _untrained(self.asked, Pipeline(self.best["pipeline"]))
        answer |= {
            "untrained": [str(step) for step in steps],
            "training_seconds": _training_seconds(self.asked, steps),
            "command": _training_command(self.asked, Pipeline(self.best["pipeline"])),
        }
        return {
            "dataset": self.asked.dataset,
            "budget": asdict(self.budget),
            "answer": answer,
            "runners_up": others,
            "refused": refusals(self.refused, self.table, max_drop=self._max_drop),
        }


def recommendation(asked: Asked, budget: Budget) -> Recommendation:
    """Which pipeline to take.

    Raises:
        PipeOpsError: nothing meets the budget, or too little exists to say; the remedy is named.
    """
    table = predictions(asked)
    max_drop = MAX_DROP if budget.max_drop is None else budget.max_drop
    passed, refused = candidates(table, max_drop=max_drop)
    ranked = recommend(passed, budget, refused=refused)
    return Recommendation(asked=asked, budget=budget, ranked=ranked, refused=refused, table=table)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A predicted answer beside what was measured of it."""

    seed: int
    accuracy: float
    """In the task's metric, a fraction."""
    time_ms: float
    expected: pd.Series
    """The answer."""

    @property
    def accuracy_within(self) -> bool | None:
        """Whether the measured accuracy lies in the interval; None without an interval."""
        return _within(self.accuracy, self.expected["accuracy_low"], self.expected["accuracy_high"])

    @property
    def time_within(self) -> bool | None:
        """The same of the time."""
        low, high = _time_ends(self.expected)
        return _within(self.time_ms, low, high)

    def text(self) -> str:
        """Two lines: accuracy, or another metric, and time."""
        metric = quality([self.expected["metric"]])
        return "\n".join(
            [
                f"Measured with seed {self.seed}:",
                f"- {metric} {100 * self.accuracy:.1f}%, predicted {_accuracy(self.expected)}: "
                f"{_said(self.accuracy_within)}",
                f"- time {self.time_ms:.3g} ms, predicted {_time(self.expected)}: {_said(self.time_within)}",
            ]
        )

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "seed": self.seed,
            "accuracy": self.accuracy,
            "accuracy_within": self.accuracy_within,
            "time_ms": self.time_ms,
            "time_within": self.time_within,
        }


def verify(answer: Recommendation, *, cores: int) -> Verification | None:
    """Train and measure a predicted answer through the workflow, with the study's first seed.

    Returns:
        What was measured; None where the answer was measured before.

    Raises:
        PipeOpsError: the study is made from published answers, this folder has no Snakefile, or a job failed.
    """
    asked, best = answer.asked, answer.best
    if best["kind"] == MEASURED:
        return None
    if asked.study.answers:
        raise PipeOpsError("--verify: the study is made from published answers; set answers: null to train")
    if not Path("Snakefile").is_file():
        raise PipeOpsError("--verify: this folder has no Snakefile; run it where the study is run")
    pipeline, seed = Pipeline(best["pipeline"]), asked.study.seeds[0]
    target = asked.answers_of(pipeline, seed)
    command = [sys.executable, "-m", *asked.command(target, cores=cores)]
    # What the workflow prints goes where its log goes, so that the answer can be read by programs.
    run = subprocess.run(command, stdout=sys.stderr, check=False)
    if run.returncode:
        raise PipeOpsError(
            f"--verify: {shlex.join(asked.command(target, cores=cores))} failed; its first error is above"
        )
    priced = Path(asked.study.pathvars.results, "prices", asked.dataset, f"{pipeline.operators}.csv")
    replays = Replays.read([Path(target)], [priced], metrics=asked.metrics, **jobs.rule_of_exits(asked.study))
    curve = Predictor(asked.dataset, replays, replays.prices(asked.dataset)).measured(
        pipeline, best["inference"]
    )
    at = 0 if pd.isna(best["threshold"]) else curve.thresholds.index(best["threshold"])
    return Verification(
        seed=seed,
        accuracy=float(curve.accuracy[0, at]),
        time_ms=float(curve.time[0, at]) * best["time_ms"] / best["time_relative"],
        expected=best,
    )


def _prices(folder: Path, pipelines: Sequence[Pipeline], asked: Asked) -> dict[str, Prices]:
    paths = {pipeline.operators: folder / f"{pipeline.operators}.csv" for pipeline in pipelines}
    found = {
        operators: read_prices(path, this_cpu=not asked.study.any_cpu)
        for operators, path in paths.items()
        if path.is_file()
    }
    if not found:
        command = shlex.join(asked.command(*map(str, paths.values())))
        raise PipeOpsError(f"{folder}: no prices; they take some minutes and no training: {command}")
    return found


def _refuse_too_few(trained: set[str], asked: Asked) -> None:
    """Without O and another there is nothing to choose from."""
    if "O" not in trained or len(trained) == 1:
        parts = "OVDPE" if asked.study.transformed else "ODPE"
        missing = [part for part in parts if part not in trained]
        raise PipeOpsError(
            f"{asked.dataset}: too few runs to predict from: {', '.join(missing)} is missing; "
            f"{_command_for(missing, asked)}"
        )


def _command_for(parts: Sequence[str], asked: Asked) -> str:
    """What trains and measures these pipelines, with the first seed."""
    return shlex.join(asked.command(*(asked.answers_of(part, asked.study.seeds[0]) for part in parts)))


def _left_out(asked: Asked, table: pd.DataFrame) -> str:
    """Name the pipelines of which nothing is known, and what would change that; empty if there are none."""
    known = set(table["pipeline"])
    wanted = [str(pipeline) for pipeline in asked.study.trainings if str(pipeline) not in known]
    parts = [part for part in wanted if len(Pipeline(part).operators) == 1]
    if not wanted:
        return ""
    remedy = f"; {_command_for(parts, asked)}" if parts else "; no seed has all their parts, or no price"
    return f"Nothing is known of {', '.join(wanted)}{remedy}"


def _untrained(asked: Asked, pipeline: Pipeline) -> list[Pipeline]:
    """What must be trained before a pipeline can be deployed, with the first seed."""
    models = Path(asked.study.pathvars.results, "models", asked.dataset)
    return [
        step
        for step in closure([pipeline])
        if not (models / str(step) / f"seed{asked.study.seeds[0]}" / jobs.WEIGHTS).is_file()
    ]


def _training_command(asked: Asked, pipeline: Pipeline) -> list[str]:
    seed, results = asked.study.seeds[0], asked.study.pathvars.results
    exported = f"{results}/onnx/{asked.dataset}/{pipeline}/seed{seed}/model.onnx"
    return asked.command(exported, asked.answers_of(pipeline, seed))


def _training_seconds(asked: Asked, steps: Sequence[Pipeline]) -> float | None:
    """How long trainings take, from those that were done: of the same operator, else of any; None of none."""
    times: dict[str, list[float]] = {}
    for path in Path(asked.study.pathvars.logs).glob(f"models/{asked.dataset}/*/seed*.tsv"):
        with reading(path, again="delete it"):
            seconds = float(path.read_text().splitlines()[1].split("\t")[0])
        times.setdefault(path.parent.name[-1], []).append(seconds)
    if not times:
        return None
    every = [seconds for found in times.values() for seconds in found]
    return float(sum(np.mean(times.get(step.operator, every)) for step in steps))


def _still_to_train(asked: Asked, pipeline: Pipeline) -> str:
    """What is missing before a pipeline can be deployed, about how long it takes, and the command."""
    steps = _untrained(asked, pipeline)
    if not steps:
        return f"It is trained (seed {asked.study.seeds[0]})."
    seconds = _training_seconds(asked, steps)
    took = "" if seconds is None else f", about {seconds:.0f} s"
    names = ", ".join(map(str, steps))
    return f"Still to be trained: {names}{took}: {shlex.join(_training_command(asked, pipeline))}"


def _alike(rows: pd.DataFrame) -> list[tuple[list[str], pd.Series]]:
    """Rows with the names that they stand for: orderings of one set that are predicted share a prediction."""
    found: dict[tuple[str, ...], tuple[list[str], pd.Series]] = {}
    for _, row in rows.iterrows():
        one = row["pipeline"] if row["kind"] == MEASURED else Pipeline(row["pipeline"]).operators
        names, _ = found.setdefault((row["kind"], one, row["inference"]), ([], row))
        names.append(name_of(row))
    return list(found.values())


def _at(row: pd.Series) -> str:
    return "" if pd.isna(row["threshold"]) else f" at threshold {row['threshold']:g}"


def _accuracy(row: pd.Series) -> str:
    text = f"{100 * row['accuracy']:.1f}%"
    if pd.isna(row["accuracy_low"]):
        return text
    return f"{text} ({100 * row['accuracy_low']:.1f}-{100 * row['accuracy_high']:.1f})"


def _time(row: pd.Series) -> str:
    """Milliseconds, their interval unless it is a single time, and the part of O's time."""
    low, high = (f"{end:.3g}" for end in _time_ends(row))
    interval = "" if low in (high, "nan") else f"{low}-{high}; "
    return f"{row['time_ms']:.3g} ms ({interval}{row['time_relative']:.3g} of O's)"


def _time_ends(row: pd.Series) -> tuple[float, float]:
    """The interval of the time in milliseconds."""
    original_ms = row["time_ms"] / row["time_relative"]
    return row["time_low"] * original_ms, row["time_high"] * original_ms


def _within(value: float, low: float, high: float) -> bool | None:
    if pd.isna(low):
        return None
    return bool(low - _SAME * abs(low) <= value <= high + _SAME * abs(high))


def _said(within: bool | None) -> str:
    return {None: "no interval to compare with", True: "inside its interval", False: "outside its interval"}[
        within
    ]


def _records(ranked: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for programs, with the whole pipeline's name and the interval of the time."""
    ends = pd.DataFrame([_time_ends(row) for _, row in ranked.iterrows()], columns=["low", "high"])
    table = ranked.assign(
        name=[name_of(row) for _, row in ranked.iterrows()],
        time_ms_low=ends["low"],
        time_ms_high=ends["high"],
    )
    return json.loads(table.to_json(orient="records"))
