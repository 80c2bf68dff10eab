"""How often the verdicts are right: level and power of the tests, by simulation, as Markdown.

Every study is drawn as differences paired by seed, in percentage points, or as the accuracies that they are
differences of; the margin is 2 points. A verdict may be false in at most 5% of the studies.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from pipeops.analysis.curves import FloatArray
from pipeops.analysis.resampling import PerExample, bootstrap
from pipeops.analysis.verdicts import LEVEL, MARGIN, cell_p_values, estimate, holm

SEEDS = (5, 6, 10)
SDS = (0.3, 0.7, 1.5)
Noise = Callable[[np.random.Generator, tuple[int, ...]], FloatArray]


def main() -> None:
    args = arguments()
    rng = np.random.default_rng(args.seed)
    verdicts = [f"{n} seeds" for n in SEEDS]
    parts = [
        f"Margin {MARGIN:g} points, {args.studies:,} studies a row (near 5%, 1 SE is "
        f"{100 * math.sqrt(LEVEL * (1 - LEVEL) / args.studies):.2f}). A cell holds the per cent of\n"
        "studies that end in *commute* / in *order matters*, **bold** where that is false (at the margin\n"
        "both are). The rest is undecided. Where not said, the noise is normal.",
        "## Two orderings",
        "SD: of the paired difference, whatever part of it each ordering has.",
        markdown(["True difference", "SD", *verdicts], pairs(rng, args)),
        "## Two orderings whose difference is not normal, SD 0.7",
        markdown(["Noise", "True difference", *verdicts], not_normal(rng, args)),
        "## Three orderings, DEP and DPE sharing D",
        "SD over the seeds: 1 of what all runs of a seed share, 1 of what D adds, and each run's own noise.",
        markdown(["True DEP, DPE, EDP", "Own SD of DEP, DPE", "of EDP", *verdicts], cells(rng, args)),
        "## Tables of several cells, all at the margin, SD 0.7, 6 seeds",
        "Per cent of the tables with at least one claim of the kind, which is false.",
        markdown(["Cells", "Claim", "Each cell alone", "Holm"], tables(rng, args)),
        "## What Holm costs: tables of 3 and 12 cells, all alike, 6 seeds",
        "Per cent of the true claims that are made.",
        markdown(["True difference", "SD", "Each cell alone", "Holm, 3 cells", "12 cells"], power(rng, args)),
        "## The 90% interval, read as one over other examples too, 6 seeds",
        f"Two orderings alike, {args.bootstraps} studies a row: per cent of intervals that hold 0 (90 are\n"
        "wanted). SD of a run in points.",
        markdown(["Examples", "SD of a run", "Student's t over seeds", "Bootstrap"], coverage(rng, args)),
    ]
    text = "\n\n".join(parts) + "\n"
    if args.output:
        args.output.write_text(text)
    print(text)


def shares(p_equivalent: FloatArray, p_matters: FloatArray, truth: float) -> str:
    """Per cent of the studies that end in each claim, false ones bold."""
    claims = [(p_equivalent, abs(truth) >= MARGIN), (p_matters, abs(truth) <= MARGIN)]
    texts = [(f"{100 * (p <= LEVEL).mean():.1f}", false) for p, false in claims]
    return " / ".join(f"**{text}**" if false else text for text, false in texts)


def of_pair(differences: FloatArray, truth: float) -> str:
    of = estimate(differences)
    return shares(of.p_equivalent, of.p_matters, truth)


def pairs(rng: np.random.Generator, args: argparse.Namespace) -> Iterator[list[str]]:
    for truth in (0.0, 1.0, 2.0, 3.0, 4.0):
        for sd in SDS:
            drawn = (rng.normal(truth, sd, size=(args.studies, n)) for n in SEEDS)
            yield [f"{truth:g}", f"{sd:g}", *(of_pair(differences, truth) for differences in drawn)]


def one_run_in_ten_falls(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
    """Mean 0, variance 1: a run sometimes ends four SDs of the others lower."""
    chance, depth = 0.1, 4.0
    values = rng.normal(size=size) - depth * (rng.random(size) < chance)
    return (values + depth * chance) / math.sqrt(1 + depth**2 * chance * (1 - chance))


def either_falls(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
    """The difference of two orderings of which each has runs that fall."""
    return (one_run_in_ten_falls(rng, size) - one_run_in_ten_falls(rng, size)) / math.sqrt(2)


NOISES: dict[str, Noise] = {
    "Student's t, 3 d.f.": lambda rng, size: rng.standard_t(3, size) / math.sqrt(3),
    "uniform": lambda rng, size: rng.uniform(-math.sqrt(3), math.sqrt(3), size),
    "skewed down (exponential)": lambda rng, size: 1 - rng.exponential(size=size),
    "skewed up (exponential)": lambda rng, size: rng.exponential(size=size) - 1,
    "one run in ten falls, of one ordering": one_run_in_ten_falls,
    "one run in ten falls, of both": either_falls,
}


def not_normal(rng: np.random.Generator, args: argparse.Namespace) -> Iterator[list[str]]:
    for name, noise in NOISES.items():
        for truth in (0.0, 2.0, 4.0):
            drawn = (truth + 0.7 * noise(rng, (args.studies, n)) for n in SEEDS)
            yield [name, f"{truth:g}", *(of_pair(differences, truth) for differences in drawn)]


def cells(rng: np.random.Generator, args: argparse.Namespace) -> Iterator[list[str]]:
    for truths in ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 2), (0, 2, 2), (0, 0, 4)):
        for own, of_edp in ((0.2, 0.2), (0.5, 0.5), (0.5, 1.5), (1.0, 1.0)):
            drawn = (three_orders(rng, (args.studies, n), truths, own, of_edp) for n in SEEDS)
            widest = max(truths) - min(truths)
            names = [", ".join(map(str, truths)), f"{own:g}", f"{of_edp:g}"]
            yield names + [shares(*of_cell(orders), widest) for orders in drawn]


def three_orders(
    rng: np.random.Generator,
    size: tuple[int, int],
    truths: tuple[float, float, float],
    own: float,
    of_edp: float,
) -> list[FloatArray]:
    """Accuracies of DEP, DPE and EDP less what they are without an effect, each (studies, seeds)."""
    of_seed, of_d = rng.normal(size=size), rng.normal(size=size)
    dep, dpe, edp = (
        truth + of_seed + rng.normal(scale=scale, size=size)
        for truth, scale in zip(truths, (own, own, of_edp), strict=True)
    )
    return [dep + of_d, dpe + of_d, edp]


def of_cell(orders: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    of_pairs = [estimate(a - b) for a, b in combinations(orders, 2)]
    return cell_p_values(
        np.stack([of.p_equivalent for of in of_pairs], axis=-1),
        np.stack([of.p_matters for of in of_pairs], axis=-1),
    )


def tables(rng: np.random.Generator, args: argparse.Namespace) -> Iterator[list[str]]:
    for num_cells in (3, 12):
        of = estimate(rng.normal(MARGIN, 0.7, size=(args.studies // 4, num_cells, 6)))
        for claim, p in (("commute", of.p_equivalent), ("order matters", of.p_matters)):
            rates = [100 * (values <= LEVEL).any(axis=1).mean() for values in (p, holm(p))]
            yield [str(num_cells), claim, *(f"{rate:.1f}" for rate in rates)]


def power(rng: np.random.Generator, args: argparse.Namespace) -> Iterator[list[str]]:
    for truth in (0.0, 1.0, 3.0, 4.0):
        for sd in SDS:
            of = estimate(rng.normal(truth, sd, size=(args.studies // 12, 12, 6)))
            p = of.p_matters if truth > MARGIN else of.p_equivalent
            made = [p, holm(p.reshape(-1, 4, 3)), holm(p)]
            yield [f"{truth:g}", f"{sd:g}", *(f"{100 * (values <= LEVEL).mean():.1f}" for values in made)]


def coverage(rng: np.random.Generator, args: argparse.Namespace) -> Iterator[list[str]]:
    """Answers of two orderings that are equally good over all examples, but not on the drawn ones."""
    for examples in (300, 1_000, 5_000):
        for sd in (0.0, 0.5, 2.0):
            by_t = by_bootstrap = 0
            for study in range(args.bootstraps):
                orders = two_alike(rng, examples=examples, sd=sd)
                first, second = ([of.correct[-1].mean() for of in runs] for runs in orders)
                of_seeds = estimate(100 * (np.array(first) - second))
                low, high, _ = bootstrap(*orders, resamples=1_000, seed=study)
                by_t += bool(of_seeds.low <= 0 <= of_seeds.high)
                by_bootstrap += low <= 0 <= high
            rates = (f"{100 * held / args.bootstraps:.0f}" for held in (by_t, by_bootstrap))
            yield [f"{examples:,}", f"{sd:g}", *rates]


def two_alike(
    rng: np.random.Generator, *, examples: int, sd: float
) -> tuple[list[PerExample], list[PerExample]]:
    """Six seeds of two orderings, one exit: an example is hard for all, for an ordering, and for a run.

    The part of the ordering is what seeds do not average out. About 85% are answered rightly.
    """
    hard = rng.normal(size=examples)
    orders = []
    for _ in range(2):
        of_order = hard + 0.5 * rng.normal(size=examples)
        runs = []
        for _ in range(6):
            noise = 0.5 * rng.normal(size=examples)
            # Where 85% are right, 1 of the latent variable is about 19 points.
            ease = 1.04 * math.sqrt(1.5) + rng.normal(scale=sd / 19)
            right = (of_order + noise < ease).astype(int)
            runs.append(PerExample(right[np.newaxis], np.ones(examples, dtype=int), np.ones((1, examples))))
        orders.append(runs)
    return orders[0], orders[1]


def markdown(header: list[str], rows: Iterator[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=40_000, help="simulated studies per row")
    parser.add_argument(
        "--bootstraps", type=int, default=300, help="simulated studies per row of the bootstrap"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where to write the Markdown, besides the terminal")
    return parser.parse_args()


if __name__ == "__main__":
    main()
