"""A hundred random mutations of the shipped configurations; `make mutations` tries 2,000 of each."""

from random_configs import mutated, try_all


def test_random_configurations_plan_or_are_refused_shortly():
    figures = try_all(range(100))
    assert not figures.wrong, "\n".join(figures.wrong)
    assert figures.told["accepted"] >= 10
    assert figures.told["refused"] >= 30


def test_a_mutation_is_known_by_its_number():
    assert mutated(3) == mutated(3) != mutated(4)
