"""Predictions and recommendations of a study, from whatever of it exists: prices, answers, checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeops.analysis.predict import predict
from pipeops.analysis.recommend import Budget, candidates, name_of, recommend
from pipeops.analysis.replays import Replays
from pipeops.errors import PipeOpsError
from pipeops.measuring.prices import Prices, read_prices
from pipeops.pipeline import Pipeline, closure, trained_pipelines
from pipeops.study import jobs
from pipeops.study.config import Config
from pipeops.text import markdown_table, nearest

BUDGETS = {"1": 1.0, "1/2": 1 / 2, "1/4": 1 / 4, "1/8": 1 / 8, "1/16": 1 / 16}
"""Times over O's at which predictions are printed."""
RUNNERS_UP = 5


def dataset_of(study: Config, asked: str | None) -> str:
    """The dataset that is asked about: the only one, or the one that is named.

    Raises:
        PipeOpsError: the study has several and none is named, or not this one.
    """
    if asked is None and len(study.datasets) == 1:
        return study.datasets[0]
    if asked not in study.datasets:
        what = (
            "not named" if asked is None else f"'{asked}' is not in the study{nearest(asked, study.datasets)}"
        )
        raise PipeOpsError(f"--dataset: {what}; name one of {', '.join(study.datasets)}")
    return asked


def predictions(study: Config, dataset: str) -> pd.DataFrame:
    """Every valid pipeline of a dataset that can be measured or predicted; see ``predict.predict``.

    Raises:
        PipeOpsError: there are no prices, or too few runs; the command that makes them is named.
    """
    measured_in = Path(study.answers or study.pathvars.results)
    pipelines = [Pipeline(text) for text in trained_pipelines()]
    prices = _prices(measured_in / "prices" / dataset, pipelines, study)
    found = {
        (str(pipeline), seed): path
        for pipeline in pipelines
        for seed in study.seeds
        if (path := measured_in / f"answers/{dataset}/{pipeline}/seed{seed}.parquet").is_file()
        and pipeline.operators in prices
    }
    _refuse_too_few(dataset, {name for name, _ in found}, study)
    replays = Replays.read(
        found.values(),
        [measured_in / f"prices/{dataset}/{operators}.csv" for operators in prices],
        **jobs.rule_of_exits(study),
    )
    return predict(dataset, replays, prices, pipelines)


def predictions_text(table: pd.DataFrame) -> str:
    """A line per pipeline: the accuracy that fractions of O's time afford, with its interval."""
    rows = []
    groups: Any = table.groupby(["pipeline", "inference"], sort=False)
    for (pipeline, inference), points in groups:
        cells = []
        for budget in BUDGETS.values():
            fitting = points[points["time_relative"] <= budget]
            cells.append("-" if fitting.empty else _accuracy(fitting.loc[fitting["accuracy"].idxmax()]))
        kind = f"{points['kind'].iloc[0]}, {points['n_seeds'].iloc[0]}"
        rows.append([name_of(pd.Series({"pipeline": pipeline, "inference": inference})), kind, *cells])
    return markdown_table(["pipeline", "seeds", *(f"t = {name}" for name in BUDGETS)], rows)


def recommendation_text(study: Config, dataset: str, table: pd.DataFrame, budget: Budget) -> str:
    """One answer first, then the runners-up, and what was refused.

    Raises:
        PipeOpsError: nothing meets the budget.
    """
    passed, refused = candidates(table, **({} if budget.max_drop is None else {"max_drop": budget.max_drop}))
    ranked = recommend(passed, budget)
    best = ranked.iloc[0]
    lines = [f"Take {name_of(best)}{_at(best)}: {_accuracy(best)} accuracy ({best['kind']})"]
    lines[0] += f" in {_time(best)} an input, {best['size_mb']:.3g} MB."
    lines.append(_still_to_train(study, dataset, Pipeline(best["pipeline"])))
    rows = [
        [name_of(row) + _at(row), row["kind"], _accuracy(row), _time(row), f"{row['size_mb']:.3g}"]
        for _, row in ranked.iloc[1 : 1 + RUNNERS_UP].iterrows()
    ]
    parts = ["\n".join(lines)]
    if rows:
        header = ["runner-up", "", "accuracy (90% interval)", "time", "MB"]
        parts.append(markdown_table(header, rows))
    if refused:
        parts.append("\n".join(refused))
    return "\n\n".join(parts)


def _prices(folder: Path, pipelines: Sequence[Pipeline], study: Config) -> dict[str, Prices]:
    paths = {pipeline.operators: folder / f"{pipeline.operators}.csv" for pipeline in pipelines}
    this_cpu = not (study.measuring.allow_other_cpu or study.answers)
    found = {
        operators: read_prices(path, this_cpu=this_cpu) for operators, path in paths.items() if path.is_file()
    }
    if not found:
        wanted = " ".join(str(path) for path in paths.values())
        raise PipeOpsError(
            f"{folder}: no prices; they take some minutes and no training: snakemake --cores 2 {wanted}"
        )
    return found


def _refuse_too_few(dataset: str, trained: set[str], study: Config) -> None:
    """Without O and one other there is nothing to predict from."""
    if missing := [part for part in ("O", "D", "P", "E") if part not in trained]:
        if "O" in trained:
            return
        results, seed = study.pathvars.results, study.seeds[0]
        wanted = " ".join(f"{results}/answers/{dataset}/{part}/seed{seed}.parquet" for part in missing)
        raise PipeOpsError(
            f"{dataset}: too few runs to predict from: {', '.join(missing)} is missing; "
            f"snakemake --cores 2 {wanted}"
        )


def _still_to_train(study: Config, dataset: str, pipeline: Pipeline) -> str:
    """What is missing before a pipeline can be deployed, and about how long it takes."""
    seed, results = study.seeds[0], Path(study.pathvars.results)
    missing = [
        str(step)
        for step in closure([pipeline])
        if not (results / f"models/{dataset}/{step}/seed{seed}/{jobs.WEIGHTS}").is_file()
    ]
    if not missing:
        return f"It is trained (seed {seed})."
    seconds = [
        float(path.read_text().splitlines()[1].split("\t")[0])
        for path in Path(study.pathvars.logs).glob(f"models/{dataset}/*/seed*.tsv")
    ]
    took = f", about {sum(seconds) / len(seconds) * len(missing):.0f} s" if seconds else ""
    return (
        f"Still to be trained: {', '.join(missing)}{took}: "
        f"snakemake --cores 2 {results}/onnx/{dataset}/{pipeline}/seed{seed}/model.onnx"
    )


def _at(row: pd.Series) -> str:
    return "" if pd.isna(row["threshold"]) else f" at threshold {row['threshold']:g}"


def _accuracy(row: pd.Series) -> str:
    text = f"{100 * row['accuracy']:.1f}%"
    if pd.isna(row["accuracy_low"]):
        return text
    return f"{text} ({100 * row['accuracy_low']:.1f}-{100 * row['accuracy_high']:.1f})"


def _time(row: pd.Series) -> str:
    return f"{row['time_ms']:.3g} ms ({row['time_relative']:.3g} of O's)"
