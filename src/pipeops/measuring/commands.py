"""What the commands `price`, `evaluate`, `curves` and `check` do, from files to files."""

from pathlib import Path

from pipeops.data.tokenised import load_tokenised
from pipeops.measuring.check import check
from pipeops.measuring.evaluate import read_answers
from pipeops.measuring.policies import thresholds_of
from pipeops.measuring.price_list import read_lengths
from pipeops.measuring.prices import price, read_prices
from pipeops.measuring.replay import Replay, curves
from pipeops.models.shape import ModelShape
from pipeops.settings import CheckSection, Confidence, PricesSection


def price_files(
    shape: ModelShape,
    original: ModelShape,
    data: Path,
    output: Path,
    *,
    settings: PricesSection,
    operators: str,
) -> None:
    """`pipeops price`: price a set of operators for the inputs of a tokenised split."""
    max_length = load_tokenised(data).max_length
    price(
        shape,
        original,
        output,
        lengths=read_lengths(data),
        max_length=max_length,
        settings=settings,
        operators=operators,
    )


def curves_files(
    answers: Path,
    prices: Path,
    output: Path,
    *,
    confidence: Confidence,
    thresholds: list[float],
    patiences: list[int] | None,
    allow_other_cpu: bool = False,
    dataset: str | None = None,
    pipeline: str | None = None,
    seed: int | None = None,
) -> None:
    """`pipeops curves`: join a model's answers and its shape's prices."""
    curves(
        read_answers(answers, dataset=dataset, pipeline=pipeline, seed=seed),
        read_prices(prices, this_cpu=not allow_other_cpu),
        output,
        confidence=confidence,
        thresholds=thresholds,
        patiences=patiences,
    )


def check_files(
    answers: Path,
    prices: Path,
    model: Path,
    original: Path,
    data: Path,
    output: Path,
    *,
    confidence: Confidence,
    thresholds: list[float],
    patiences: list[int] | None,
    settings: CheckSection,
    machine: PricesSection,
) -> None:
    """`pipeops check`: really run a model, and compare with its answers and prices."""
    replay = Replay(read_answers(answers), read_prices(prices))
    exits = len(replay.shape.exit_layers)
    check(
        replay,
        model,
        original,
        data,
        output,
        confidence=confidence,
        thresholds=thresholds_of(confidence, exits=exits, thresholds=thresholds, patiences=patiences),
        settings=settings,
        machine=machine,
    )
