"""Rounds by a clock that is known."""

import numpy as np
import pytest

from pipeops.errors import PipeOpsError
from pipeops.measuring import rounds
from pipeops.measuring.contention import Reading
from pipeops.measuring.rounds import Round, Rounds, quartiles, run_round, standard_errors, steady_rounds
from pipeops.settings import PricesSection


class Clock:
    """Time that passes only when a model runs, and CPU time that others use meanwhile."""

    def __init__(self):
        self.ns, self.slowness, self.others, self.busy = 0.0, 1.0, 0.0, 0.0

    def model(self, milliseconds):
        def run():
            self.pass_by(milliseconds * self.slowness)

        return run

    def pass_by(self, milliseconds):
        self.ns += milliseconds * 1e6
        self.busy += self.others * milliseconds / 1e3

    def reading(self):
        return Reading(self.ns / 1e9, self.busy, 0.0, 0.0)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter_ns", lambda: int(clock.ns))
    monkeypatch.setattr("time.perf_counter", lambda: clock.ns / 1e9)
    monkeypatch.setattr(rounds.Reading, "now", clock.reading)
    monkeypatch.setattr(rounds, "wait_until_quiet", lambda *, waited=0.0, **_: waited + 1.0)
    monkeypatch.setattr(rounds, "running", lambda: "running: python 7: 90%")
    return clock


def steady(clock, targets, original, **settings):
    values = {"rounds": 6, "most_rounds": 20} | settings
    return steady_rounds(targets, original, PricesSection(**values), what="price of DE")


def test_times_are_relative_to_the_original(clock):
    found = run_round([clock.model(1.0), clock.model(4.0)], clock.model(5.0))
    assert found.original.tolist() == pytest.approx([5, 5, 5])
    assert found.target.tolist() == pytest.approx([1, 4])
    assert found.relative.tolist() == pytest.approx([0.2, 0.8])


def test_a_machine_that_slows_down_at_a_constant_rate_cancels(clock):
    found = Round(np.array([5.0, 6.0, 7.0]), np.array([1.1, 6.5]), seconds=0.1)
    assert found.relative.tolist() == pytest.approx([0.2, 1.0])


def test_only_warm_runs_are_timed(clock):
    cold, warm = [3.0, 2.0, *[0.8] * (rounds.WARM_RUNS - 2)], [1.0, 1.2, 0.5]
    taken = iter([*cold, *warm * (rounds.TIMED_RUNS // 3)])
    assert rounds.warm_milliseconds(lambda: clock.pass_by(next(taken))) == pytest.approx(1.0)
    assert list(taken) == []


def test_slow_models_are_run_twice_only(clock):
    taken = iter([900.0, 800.0, 700.0])
    assert rounds.warm_milliseconds(lambda: clock.pass_by(next(taken))) == pytest.approx(800.0)
    assert list(taken) == [700.0]


def test_every_target_gets_as_many_rounds(clock):
    found = steady(clock, [clock.model(1.0), clock.model(2.0)], clock.model(5.0))
    kept = found.steady(0.15)
    assert len(kept) >= 6
    assert quartiles(kept)[1].tolist() == pytest.approx([0.2, 0.4])
    assert found.waited == 1.0


def test_a_round_in_which_the_original_is_off_its_median_does_not_count():
    def one(original):
        return Round(np.array([original, original]), np.array([original / 5]), seconds=0.1)

    found = Rounds(every=[one(5.0), one(5.2), one(6.5), one(4.9), one(4.0)])
    assert [kept.original[0] for kept in found.steady(0.15)] == [5.0, 5.2, 4.9]
    assert Rounds().steady(0.15) == []


def test_rounds_go_on_until_they_are_sure(clock):
    random = np.random.default_rng(0)
    settings = {"rounds": 5, "most_rounds": 300, "precision": 0.03}
    even = steady(clock, [clock.model(100.0)], clock.model(100.0), **settings)
    uneven = steady(clock, [lambda: clock.pass_by(random.uniform(60, 140))], clock.model(100.0), **settings)
    assert len(even.every) < 10 < len(uneven.every)
    assert standard_errors(uneven.every).max() <= 0.03


def test_standard_error_of_a_median():
    values = np.random.default_rng(0).normal(1.0, 0.05, (400, 25))
    found = [standard_errors([Round(np.ones(2), np.array([v]), 0.1) for v in row])[0] for row in values]
    assert np.median(found) == pytest.approx(np.median(values, axis=1).std(), rel=0.15)


def test_rounds_beside_others_are_repeated(clock):
    calls = []

    def original():
        calls.append(None)
        clock.others = 1.0 if len(calls) < 100 else 0.0
        clock.pass_by(5.0)

    found = steady(clock, [clock.model(1.0)], original)
    assert found.busy
    assert len(found.every) >= 6
    assert found.waited == pytest.approx(1.0 + sum(used.others > 0.5 for _, used in found.others))


def test_a_machine_that_never_keeps_still_is_refused_in_one_line(clock):
    clock.others = 2.0
    message = (
        r"^price of DE: times stay unsteady: of \d+ rounds 0 were steady, standard error nan%.* \(running: "
        r"python 7: 90%\); price on a quiet machine$"
    )
    with pytest.raises(PipeOpsError, match=message) as caught:
        steady(clock, [clock.model(1.0)], clock.model(5.0))
    assert "\n" not in str(caught.value)


def test_times_that_stay_unsteady_are_refused(clock):
    random = np.random.default_rng(0)
    with pytest.raises(PipeOpsError, match=r"standard error \d+\.\d% where prices.precision asks for 1%"):
        steady(clock, [lambda: clock.pass_by(random.uniform(100, 900))], clock.model(5.0))


def test_time_lost_to_unsteady_rounds_is_bounded(clock):
    random = np.random.default_rng(0)
    with pytest.raises(PipeOpsError, match=r"of \d+ rounds \d+ were steady"):
        steady(clock, [clock.model(1.0)], lambda: clock.pass_by(random.uniform(5, 20)), unsteady=1e-4, wait=3)
    assert 2 < clock.ns / 1e9 < 30  # and a second of waiting


def test_what_is_done_is_told_between_rounds(clock):
    told = []
    settings = PricesSection(rounds=6, most_rounds=20)
    steady_rounds([clock.model(100.0)], clock.model(50.0), settings, what="price", reached=told.append)
    assert told[0] == 0
    assert told == sorted(told)
    assert all(part < 1 for part in told)
    assert len(set(told)) > 1
