"""Timing models next to O in rounds, until what it gives is steady.

In a round every target is run some times in a row, and O between two targets. The first runs in a row are
not timed: a model in use is warm, and after others have run it takes some runs until its weights are back in
the caches (an int8 model of 10 M parameters took 1.25 times as long in runs 5 to 9 as in runs 17 to 31). A
target's time is divided by the mean of O's before and after it, so what makes the whole machine slower at a
constant rate cancels.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeops.errors import PipeOpsError
from pipeops.measuring.contention import Reading, Usage, running, wait_until_quiet
from pipeops.settings import PricesSection

Run = Callable[[], object]

WARM_UP = 1
"""Rounds that are run first and not counted."""
WARM_RUNS, WARM_MS = 16, 20.0
"""Untimed runs in a row: at most this number, at least one, and none after this many milliseconds."""
TIMED_RUNS, TIMED_MS = 15, 20.0
"""Runs after them whose median counts, at least one."""
LEAST_SHARE = 0.1
"""Of O's time: what takes less need not be known more precisely than this."""
_BLOCK_SECONDS = 0.5
"""What others use is looked at over so long: the system counts CPU time in steps of 0.01 s."""


class Round(NamedTuple):
    """Times of one round, milliseconds."""

    original: NDArray[np.float64]
    """O's, before each target and after the last, shape (targets + 1,)."""
    target: NDArray[np.float64]
    """Shape (targets,)."""
    seconds: float
    """How long the round took."""

    @property
    def relative(self) -> NDArray[np.float64]:
        """Each target's time over O's, shape (targets,)."""
        return 2 * self.target / (self.original[:-1] + self.original[1:])


def run_round(targets: Sequence[Run], original: Run) -> Round:
    """Time each target once, next to O."""
    begun = time.perf_counter()
    of_original, of_target = [warm_milliseconds(original)], []
    for target in targets:
        of_target.append(warm_milliseconds(target))
        of_original.append(warm_milliseconds(original))
    return Round(np.array(of_original), np.array(of_target), time.perf_counter() - begun)


def warm_milliseconds(run: Run) -> float:
    """How long a call takes that follows the same call, milliseconds: the median of some in a row."""
    _repeated(run, WARM_RUNS, WARM_MS)
    return float(np.median(_repeated(run, TIMED_RUNS, TIMED_MS)))


def _repeated(run: Run, times: int, budget: float) -> list[float]:
    """Milliseconds of each of ``times`` calls, or of as many as the budget of milliseconds allows."""
    taken: list[float] = []
    while len(taken) < times and (not taken or sum(taken) < budget):
        start = time.perf_counter_ns()
        run()
        taken.append((time.perf_counter_ns() - start) / 1e6)
    return taken


@dataclass
class Rounds:
    """What was measured, and beside what."""

    every: list[Round] = field(default_factory=list)
    """Rounds in which other processes kept still."""
    busy: list[Round] = field(default_factory=list)
    """Rounds beside others that used too much."""
    others: list[tuple[float, Usage]] = field(default_factory=list)
    """Seconds, and what others used meanwhile, for all rounds."""
    waited: float = 0.0
    """Seconds waited for a quiet machine."""

    def steady(self, unsteady: float) -> list[Round]:
        """The rounds in which O's median time is no further than ``unsteady`` off that of all."""
        medians = np.array([np.median(one.original) for one in self.every])
        near = np.abs(medians / np.median(medians) - 1) <= unsteady if len(medians) else []
        return [one for one, is_near in zip(self.every, near, strict=True) if is_near]


def steady_rounds(
    targets: Sequence[Run],
    original: Run,
    settings: PricesSection,
    *,
    what: str,
    reached: Callable[[float], None] = lambda _: None,
) -> Rounds:
    """Run rounds until every target's median is as sure as ``settings.precision``.

    Args:
        targets: what is timed.
        original: O, on an input of its own.
        settings: how many rounds, and what counts as steady.
        what: what is measured, for messages.
        reached: told between rounds which part of them is done, 0 to 1, as far as it can be foreseen.

    Raises:
        PipeOpsError: the machine is too busy, or times stay unsteady.
    """
    found = Rounds(waited=wait_until_quiet(others=settings.others, wait=settings.wait, what=what))
    for _ in range(WARM_UP):
        run_round(targets, original)
    while not _enough(steady := found.steady(settings.unsteady), settings):
        if _hopeless(found, steady, settings):
            raise PipeOpsError(_why_unsteady(found, steady, settings, what))
        reached(_part_done(steady, settings))
        before, block = Reading.now(), [run_round(targets, original)]
        while time.perf_counter() - before.at < _BLOCK_SECONDS:
            block.append(run_round(targets, original))
        after = Reading.now()
        used = before.until(after)
        found.others.append((after.at - before.at, used))
        if used.others <= settings.others:
            found.every += block
        else:
            found.busy += block
            found.waited = wait_until_quiet(
                others=settings.others, wait=settings.wait, what=what, waited=found.waited
            )
    return found


def standard_errors(rounds: Sequence[Round]) -> NDArray[np.float64]:
    """How sure the median of each target's relative time is: its standard error over it, shape (targets,).

    For normal noise, 1.253 s / sqrt(rounds), with s = IQR / 1.349: an outlier has no say. What takes less
    than a tenth of O counts as a tenth: its weights fit a cache that other machines share, and its time
    varies with what is left of that, by a quarter and more, which no number of rounds makes go away.
    """
    low, median, high = quartiles(rounds)
    return 1.253 / 1.349 * (high - low) / np.maximum(median, LEAST_SHARE) / np.sqrt(len(rounds))


def quartiles(rounds: Sequence[Round]) -> NDArray[np.float64]:
    """Quartiles of each target's time over O's, shape (3, targets); the second is the median."""
    return np.percentile([one.relative for one in rounds], [25, 50, 75], axis=0)


def _enough(rounds: Sequence[Round], settings: PricesSection) -> bool:
    return len(rounds) >= settings.rounds and bool((standard_errors(rounds) <= settings.precision).all())


def _part_done(rounds: Sequence[Round], settings: PricesSection) -> float:
    """Rounds over those that are needed: a standard error falls with the square root of their number."""
    if len(rounds) < settings.rounds:
        return len(rounds) / settings.rounds
    missing = float(standard_errors(rounds).max()) / settings.precision
    return len(rounds) / min(settings.most_rounds, len(rounds) * max(1.0, missing) ** 2)


def _hopeless(found: Rounds, steady: Sequence[Round], settings: PricesSection) -> bool:
    """Whether all rounds were run, or more time than may be is lost to rounds that do not count."""
    all_rounds = [*found.every, *found.busy]
    lost = found.waited + sum(one.seconds for one in all_rounds) - sum(one.seconds for one in steady)
    too_long = lost > settings.wait and len(all_rounds) - len(steady) > settings.rounds
    return len(steady) >= settings.most_rounds or too_long


def _why_unsteady(found: Rounds, steady: Sequence[Round], settings: PricesSection, what: str) -> str:
    error = standard_errors(steady).max() if steady else np.nan
    return (
        f"{what}: times stay unsteady: of {len(found.every) + len(found.busy)} rounds {len(steady)} were "
        f"steady, standard error {100 * error:.1f}% where prices.precision asks for "
        f"{100 * settings.precision:g}%, {found.waited:.0f} s waited ({running()}); price on a quiet machine"
    )
