import re
import subprocess
import sys
from itertools import permutations, product

import pytest

from pipeops.errors import PipeOpsError
from pipeops.operators.registry import OPERATORS
from pipeops.pipeline import (
    InvalidPipeline,
    Pipeline,
    closure,
    orderings,
    parse_operator_set,
    trained_pipelines,
)

AFTER_V = ["D", "P", "E", "C", "DP", "DE", "PE", "EP", "ED", "DPE", "DEP", "EDP"]
TRAINED = [*AFTER_V, "V", *(f"V{operators}" for operators in AFTER_V)]
VALID = re.compile(rf"(?=.)(O|{'|'.join(TRAINED)})?(L|Q|LQ|QL)?")  # the rules, written out a second time
ALPHABET = "OVDPECLQX"
TEXTS = ["".join(letters) for length in range(6) for letters in product(ALPHABET, repeat=length)]


def is_accepted(text: str) -> bool:
    try:
        Pipeline.parse(text)
    except InvalidPipeline:
        return False
    return True


def test_accepts_exactly_the_valid_texts_up_to_length_five() -> None:
    assert {text for text in TEXTS if is_accepted(text)} == {text for text in TEXTS if VALID.fullmatch(text)}


def test_every_valid_text_becomes_its_canonical_one() -> None:
    for text in filter(VALID.fullmatch, TEXTS):
        trained, inference = VALID.fullmatch(text).groups("")
        pipeline = Pipeline.parse(text)
        assert pipeline.trained == (trained or "O")
        assert pipeline.inference == inference.replace("QL", "LQ")
        assert str(pipeline) == pipeline.trained + pipeline.inference
        assert Pipeline.parse(str(pipeline)) == pipeline


def test_every_refusal_is_one_line_that_quotes_the_text() -> None:
    for text in filter(lambda text: text and not VALID.fullmatch(text), TEXTS):
        with pytest.raises(InvalidPipeline) as refusal:
            Pipeline.parse(text)
        assert repr(text) in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pipeline is empty; write one letter per operator"),
        ("DX", "unknown letter 'X'; known are O, V, D, P, E, C, L, Q"),
        ("de", "letters are upper-case; write 'DE'"),
        ("EE", "E occurs twice"),
        ("QD", "D cannot come after Q: training comes before"),
        ("PD", "D cannot come after P: a new student throws the pruning away"),
        ("PED", "D cannot come after P: a new student throws the pruning away"),
        ("CD", "D cannot come after C: C replaces D, P and E"),
        ("PC", "C cannot come after P: C replaces D, P and E"),
        ("OD", "D cannot come after O: O stands for 'nothing is trained', so leave it out"),
        ("DO", "O cannot come after D: O stands for 'nothing is trained', so leave it out"),
        ("QO", "O cannot come after Q: O stands for the original model, so it is written first"),
        ("DV", "V cannot come after D: it changes what trainings start from, so it comes first"),
        ("QV", "V cannot come after Q: it changes what trainings start from, so it comes first"),
        ("OV", "V cannot come after O: O stands for 'nothing is trained', so leave it out"),
        ("VO", "O cannot come after V: O stands for 'nothing is trained', so leave it out"),
        ("D E", "unknown letter ' '"),
    ],
)
def test_each_rule_has_its_own_message(text: str, message: str) -> None:
    with pytest.raises(InvalidPipeline, match=re.escape(message)):
        Pipeline.parse(text)


def test_a_refusal_is_a_user_error_and_a_value_error() -> None:
    assert issubclass(InvalidPipeline, PipeOpsError)
    assert issubclass(InvalidPipeline, ValueError)  # so a pydantic validator can raise it


@pytest.mark.parametrize(
    ("text", "parent", "operator"),
    [
        ("O", None, "O"),
        ("OLQ", None, "O"),
        ("D", "O", "D"),
        ("C", "O", "C"),
        ("DEPLQ", "DE", "P"),
        ("EDP", "ED", "P"),
        ("V", "O", "V"),
        ("VDEQ", "VD", "E"),
    ],
)
def test_parent_drops_the_last_trained_operator(text: str, parent: str | None, operator: str) -> None:
    pipeline = Pipeline.parse(text)
    assert pipeline.parent == (parent and Pipeline.parse(parent))
    assert pipeline.operator == operator


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ("DPE", "DEP DPE EDP"),
        ("EPD", "DEP DPE EDP"),
        ("DE", "DE ED"),
        ("PE", "EP PE"),
        ("DP", "DP"),
        ("DEQL", "DELQ EDLQ"),
        ("O", "O"),
        ("DC", ""),
        ("EVD", "VDE VED"),
        ("CV", "VC"),
    ],
)
def test_orderings_are_the_valid_ones_sorted(operators: str, expected: str) -> None:
    assert [str(pipeline) for pipeline in orderings(operators)] == expected.split()


def test_operator_sets_are_read_in_any_order() -> None:
    for operators in ("DE", "PE", "DPE"):
        assert {parse_operator_set("".join(text)) for text in permutations(operators)} == {operators}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "operator set is empty"),
        ("DD", "operator set 'DD': D occurs twice"),
        ("dE", "operator set 'dE': letters are upper-case"),
        ("DZ", "operator set 'DZ': unknown letter 'Z'"),
        ("DC", "operator set 'DC' has no valid order"),
        ("DV", "operator set 'DV' has only one ordering (VD)"),
        ("PD", "operator set 'PD' has only one ordering (DP)"),
        ("E", "operator set 'E' has only one ordering (E)"),
        ("LQ", "operator set 'LQ' has only one ordering (OLQ)"),
    ],
)
def test_operator_sets_without_two_orders_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidPipeline, match=re.escape(message)):
        parse_operator_set(text)


def test_closure_of_the_three_sets_is_twelve_trainings() -> None:
    wanted = [pipeline for operators in ("DE", "PE", "DPE") for pipeline in orderings(operators)]
    assert [str(p) for p in closure(wanted)] == [
        "O",
        "D",
        "E",
        "P",
        "DE",
        "DP",
        "ED",
        "EP",
        "PE",
        "DEP",
        "DPE",
        "EDP",
    ]
    assert closure(reversed(wanted)) == closure(wanted)


def test_closure_holds_parents_before_children_and_nothing_but_trained_parts() -> None:
    everything = [Pipeline.parse(text) for text in TEXTS if VALID.fullmatch(text)]
    found = closure(everything)
    assert [str(p) for p in found[:6]] == ["O", "C", "D", "E", "P", "V"]
    assert {str(p) for p in found} == {"O", *TRAINED}
    assert len(found) == len(set(found))
    assert all(p.parent is None or p.parent in found[:place] for place, p in enumerate(found))
    assert closure([]) == []


def test_operators_know_their_kind() -> None:
    kinds = {letter: operator.kind for letter, operator in OPERATORS.items()}
    kind_of = {"original": "O", "transforms": "V", "trained": "DPEC", "inference": "LQ"}
    assert kinds == {letter: kind for kind, letters in kind_of.items() for letter in letters}


def test_what_v_comes_first_in_starts_from_other_backbones() -> None:
    for text in TRAINED:
        assert Pipeline(text).transformed == ("V" in text)
    assert not Pipeline("O").transformed


def test_importing_it_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, pipeops.pipeline; print({'numpy', 'pandas', 'torch', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_every_trained_pipeline_is_listed_once():
    found = trained_pipelines()
    assert len(found) == len(set(found)) == 1 + (4 + 5 + 3) + (1 + 4 + 5 + 3)
    assert {"O", "C", "DPE", "EDP", "PE", "V", "VC", "VEDP"} <= set(found)
    assert all(Pipeline.parse(text).trained == text for text in found)
