"""Operators from installed packages: found, or refused in one line."""

from dataclasses import replace
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from pipeops.errors import PipeOpsError
from pipeops.operators import registry
from pipeops.operators.builtin import PRUNING, PruningSection
from pipeops.settings import Section


class Rank(Section):
    """Settings of an operator."""

    keep_rank: float = 0.5


GOOD = replace(PRUNING, letter="F", name="low rank", section="low_rank", settings=Rank, never_after={})


def entry(declaration, name="low_rank"):
    """An entry point that gives this declaration; an exception is raised instead."""

    def load():
        if isinstance(declaration, Exception):
            raise declaration
        return declaration

    return SimpleNamespace(name=name, value="somewhere:F", dist=SimpleNamespace(name="pipeops-x"), load=load)


def test_an_added_operator_stands_after_the_trained_and_before_the_inference_ones():
    assert "".join(registry.load([entry(GOOD)])) == "OVDPECFLQ"
    two = [entry(replace(GOOD, letter="Z", section="z"), "z"), entry(GOOD)]
    assert "".join(registry.load(two)) == "OVDPECFZLQ"


def test_it_may_forbid_what_comes_after_it():
    operators = registry.load([entry(replace(GOOD, never_before={"D": "a student throws it away"}))])
    assert operators["D"].refuses(operators["F"]) == "a student throws it away"
    assert operators["F"].refuses(operators["D"]) is None


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (replace(GOOD, letter="P"), "letter P is taken by structured pruning"),
        (replace(GOOD, letter="f"), "letter 'f' is not one upper-case letter"),
        (replace(GOOD, letter="FF"), "letter 'FF' is not one upper-case letter"),
        (
            replace(GOOD, section="pruning", settings=PruningSection),
            "section 'pruning' is taken by",
        ),
        (replace(GOOD, shape=None), "declares no shape"),
        (replace(GOOD, flops=None, target=""), "declares no flops, target"),
        (
            replace(GOOD, target="module.function"),
            "target 'module.function' is not of the form module:function",
        ),
        (replace(GOOD, kind="inference"), "kind 'inference' cannot be added, only 'trained'"),
        (replace(GOOD, section=""), "section without settings, or settings without a section"),
        ("F", "is no pipeops.operators.declaration.Operator but a str"),
        (ImportError("No module named 'x'"), "not importable (ImportError: No module named 'x')"),
    ],
)
def test_a_bad_declaration_is_one_line(declaration, message):
    with pytest.raises(PipeOpsError) as error:
        registry.load([entry(declaration)])
    text = str(error.value)
    assert text.startswith("operator 'low_rank' of pipeops-x: ")
    assert message in text
    assert text.endswith("; mend or uninstall pipeops-x")
    assert "\n" not in text


def test_two_packages_with_one_letter_are_refused():
    with pytest.raises(PipeOpsError, match="letter F is taken by low rank"):
        registry.load([entry(GOOD), entry(replace(GOOD, section="other"), "other")])


def test_real_entry_points_name_their_value_where_no_package_is_known():
    point = EntryPoint(name="x", value="no_such_module:F", group=registry.GROUP)
    with pytest.raises(PipeOpsError, match=r"operator 'x' of no_such_module:F: not importable"):
        registry.load([point])


def test_the_built_in_operators_name_functions_that_exist():
    for letter in registry.TRAINABLE:
        assert callable(registry.training_function(letter))


def test_an_operator_without_training_is_refused():
    with pytest.raises(PipeOpsError, match="operator 'Q' cannot be trained; known are O, V, D, P, E, C"):
        registry.training_function("Q")


def test_a_function_that_is_missing_is_one_line(monkeypatch):
    broken = dict(registry.OPERATORS) | {"P": replace(PRUNING, target="pipeops.operators.pruning:no")}
    monkeypatch.setattr(registry, "OPERATORS", broken)
    with pytest.raises(PipeOpsError, match="operator P: pipeops.operators.pruning:no cannot be imported"):
        registry.training_function("P")
