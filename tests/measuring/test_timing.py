"""Times of exits, by a clock that is known, and by really running models."""

import numpy as np
import pytest

from pipeops.data.tokenised import TokenisedSplit
from pipeops.measuring.timing import Costs, check, exit_costs
from pipeops.models.shape import ModelShape
from pipeops.onnx.runtime import Answer, force_exit


class Clockwork:
    """A model whose exits take known times on a clock of its own."""

    def __init__(self, clock, milliseconds):
        self.clock, self.milliseconds = clock, milliseconds
        layers = tuple(range(1, len(milliseconds) + 1))
        values = dict.fromkeys(ModelShape.__dataclass_fields__, 1) | {"exit_layers": layers}
        self.shape = ModelShape(**values)

    def run(self, ids, mask, thresholds=()):
        exit_index = next((i for i, t in enumerate(thresholds) if t <= 0.5), len(self.milliseconds) - 1)
        self.clock[0] += self.milliseconds[exit_index] * 1e6 * self.clock[1]
        return Answer(np.zeros((1, 2)), exit_index + 1)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0, 1.0]  # nanoseconds, and how slow the machine is at present
    monkeypatch.setattr("time.perf_counter_ns", lambda: int(now[0]))
    return now


def split_of(lengths, *, max_length=40):
    return TokenisedSplit(
        input_ids=[np.arange(length) for length in lengths],
        label_ids=np.zeros(len(lengths), dtype=int),
        labels=("no", "yes"),
        pad_token_id=1,
        sep_token_id=2,
        max_length=max_length,
    )


def test_costs_by_a_clock_that_is_known(clock):
    target, baseline = Clockwork(clock, [1.0, 2.0, 4.5]), Clockwork(clock, [5.0])
    costs = exit_costs({"": target}, baseline, split_of([4, 8, 9]), rounds=7)[""]
    assert costs.lengths.tolist() == [40]
    assert costs.relative[0].tolist() == pytest.approx([0.2, 0.4, 0.9])
    assert costs.original_ms == pytest.approx(5.0)


def test_a_drifting_machine_cancels_out(clock):
    target, baseline = Clockwork(clock, [1.0, 4.0]), Clockwork(clock, [5.0])
    split = split_of([4, 8, 9])
    pad = split.padded

    def slower_every_round(example):
        clock[1] *= 1.5
        return pad(example)

    object.__setattr__(split, "padded", slower_every_round)
    costs = exit_costs({"L": target}, baseline, split, rounds=9)["L"]
    assert costs.relative.tolist() == [pytest.approx([0.2, 0.8])] * 3


def test_with_dynamic_length_time_is_measured_at_lengths_spread_over_the_data(clock):
    per_token, baseline = PerToken(clock), Clockwork(clock, [5.0])
    split = split_of([30, *range(3, 23), 40])
    costs = exit_costs({"": per_token, "L": per_token}, baseline, split, rounds=10)
    assert costs["L"].lengths.tolist() == [3, 8, 13, 19, 40]
    assert costs["L"].relative[:, 1].tolist() == pytest.approx([0.06, 0.16, 0.26, 0.38, 0.8])
    assert costs[""].relative[0].tolist() == pytest.approx([0.4, 0.8])
    # Between the lengths the cost is linear, and so is this clock.
    assert costs["L"].of(np.array([3, 5, 30]), np.array([1, 0, 1])) == pytest.approx([0.06, 0.05, 0.6])


class Warming(Clockwork):
    """Takes twice as long when the previous run left elsewhere or had another length."""

    previous = None

    def run(self, ids, mask, thresholds=()):
        answer = super().run(ids, mask, thresholds)
        if (state := (answer.exit_layer, ids.shape)) != self.previous:
            super().run(ids, mask, thresholds)
        self.previous = state
        return answer


def test_what_is_timed_is_as_warm_as_what_it_is_compared_with(clock):
    target, baseline = Warming(clock, [1.0, 2.0, 5.0]), Warming(clock, [5.0])
    costs = exit_costs({"": target, "L": target}, baseline, split_of([4, 8, 9]), rounds=6)
    assert costs[""].relative[0].tolist() == pytest.approx([0.2, 0.4, 1.0])
    assert costs["L"].relative[1].tolist() == pytest.approx([0.2, 0.4, 1.0])


class PerToken:
    """A model whose two exits take 0.05 and 0.1 ms a token."""

    def __init__(self, clock):
        self.clock = clock
        values = dict.fromkeys(ModelShape.__dataclass_fields__, 1) | {"exit_layers": (1, 2)}
        self.shape = ModelShape(**values)

    def run(self, ids, mask, thresholds=()):
        self.clock[0] += ids.shape[1] * (0.05 if thresholds[0] <= 0.5 else 0.1) * 1e6


def test_check_compares_replay_and_run(clock):
    target, baseline = Clockwork(clock, [1.0, 4.0]), Clockwork(clock, [5.0])
    confidence = np.array([[0.9, 1], [0.1, 1], [0.2, 1], [0.9, 1], [0.2, 1]], dtype=np.float32)
    costs = Costs(lengths=np.array([40]), relative=np.array([[0.2, 0.8]]), original_ms=5.0)
    arguments = {"examples": [0, 1, 2, 3], "threshold": 0.4}
    result = check("", target, baseline, split_of([4] * 5), confidence, costs, **arguments)
    # The clockwork always leaves at layer 1, as 0.4 <= 0.5; two examples should have gone on.
    assert result.differing_exits == 2
    assert result.examples == 4
    assert result.time_relative_replayed == pytest.approx(0.5)
    assert result.time_relative_run == pytest.approx(0.2)


@pytest.mark.parametrize(("inference", "differing"), [("", 1), ("Q", 0)])
def test_an_exit_within_rounding_of_the_threshold_may_differ(clock, inference, differing):
    target, baseline = Clockwork(clock, [1.0, 4.0]), Clockwork(clock, [5.0])
    confidence = np.array([[0.399, 1]], dtype=np.float32)
    costs = Costs(lengths=np.array([40]), relative=np.array([[0.2, 0.8]]), original_ms=5.0)
    result = check(inference, target, baseline, split_of([4]), confidence, costs, examples=[0], threshold=0.4)
    assert result.differing_exits == differing


def test_forced_exits_cover_the_first_and_the_last():
    assert force_exit(1, [1, 2, 3]).tolist() == [0.0, 2.0]
    assert force_exit(3, [1, 2, 3]).tolist() == [2.0, 2.0]
