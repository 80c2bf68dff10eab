"""Every operator by its letter: those that PipeOps comes with, and those of installed packages.

A package adds a trained operator by an entry point of the group ``pipeops.operators`` whose value is a
``declaration.Operator``; see docs/new-operator.md.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.operators.builtin import BUILTIN
from pipeops.operators.declaration import Operator, Setup
from pipeops.provenance import OPERATOR_GROUP as GROUP
from pipeops.settings import Section


def load(found: Iterable[EntryPoint]) -> dict[str, Operator]:
    """Collect the operators: built-in trained ones, those of the entry points by letter, inference ones.

    Raises:
        PipeOpsError: an entry point cannot be imported, lacks a part, or its letter or section is taken.
    """
    added: list[Operator] = []
    for entry in sorted(found, key=lambda entry: entry.name):
        added.append(_declared(entry, [*BUILTIN, *added]))
    trained = [operator for operator in BUILTIN if operator.kind != "inference"]
    inference = [operator for operator in BUILTIN if operator.kind == "inference"]
    ordered = [*trained, *sorted(added, key=lambda operator: operator.letter), *inference]
    return {operator.letter: operator for operator in ordered}


def _declared(entry: EntryPoint, taken: Iterable[Operator]) -> Operator:
    """Import and check one declaration."""
    package = entry.dist.name if entry.dist else entry.value
    remedy = f"mend or uninstall {package}"
    try:
        operator = entry.load()
    except Exception as error:  # whatever a package raises when it is imported
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PipeOpsError(
            f"operator '{entry.name}' of {package}: not importable ({reason}); {remedy}"
        ) from None
    if problem := _problem(operator, taken):
        raise PipeOpsError(f"operator '{entry.name}' of {package}: {problem}; {remedy}")
    return operator


def _problem(operator: Any, taken: Iterable[Operator]) -> str | None:
    """What is wrong with a declaration; None where nothing is."""
    if not isinstance(operator, Operator):
        return f"is no pipeops.operators.declaration.Operator but a {type(operator).__name__}"
    if not (len(operator.letter) == 1 and operator.letter.isascii() and operator.letter.isupper()):
        return f"letter '{operator.letter}' is not one upper-case letter"
    if operator.kind != "trained":
        return f"kind '{operator.kind}' cannot be added, only 'trained'"
    missing = [name for name in ("name", "shape", "flops", "target") if not getattr(operator, name)]
    if missing:
        return f"declares no {', '.join(missing)}"
    if operator.target.count(":") != 1:
        return f"target '{operator.target}' is not of the form module:function"
    if bool(operator.section) != bool(operator.settings.model_fields):
        return "declares a section without settings, or settings without a section"
    if not issubclass(operator.settings, Section):
        return "settings are no pipeops.settings.Section"
    for other in taken:
        if operator.letter == other.letter:
            return f"letter {operator.letter} is taken by {other.name}"
        if operator.section and operator.section == other.section:
            return f"section '{operator.section}' is taken by {other.name}"
    return None


OPERATORS: Mapping[str, Operator] = load(entry_points(group=GROUP))
"""Every operator by its letter, in the order in which sets of operators are written."""
TRAINABLE = tuple(letter for letter, operator in OPERATORS.items() if operator.target)
"""Letters of the operators that make a model: O, V and the trained ones."""


def shape_after(operators: str, original: ModelShape, setup_of: Callable[[str], Setup]) -> ModelShape:
    """The shape of a trained pipeline's model.

    Args:
        operators: letters of a trained pipeline, in its order.
        original: the shape of O.
        setup_of: what an operator's shape depends on, by its letter.

    Raises:
        PipeOpsError: an architecture is not known, or a setting does not fit it.
    """
    shape = original
    for letter in operators:
        after = declared(letter).shape
        assert after is not None
        shape = after(shape, setup_of(letter))
    return shape


def declared(letter: str) -> Operator:
    """The declaration of an operator that has a training.

    Raises:
        PipeOpsError: the letter has none.
    """
    if letter not in TRAINABLE:
        raise PipeOpsError(f"operator '{letter}' cannot be trained; known are {', '.join(TRAINABLE)}")
    return OPERATORS[letter]


def training_function(letter: str) -> Callable[..., Any]:
    """Import the function that makes the stages of an operator's training.

    Raises:
        PipeOpsError: the letter has no training, or its function cannot be imported.
    """
    target = declared(letter).target
    module, _, function = target.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise PipeOpsError(
            f"operator {letter}: {target} cannot be imported ({error}); mend its declaration"
        ) from None
