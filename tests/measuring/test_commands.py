"""Whose shapes are priced, by the backbone that is named."""

import pytest
from made_tokenizers import words_of, write_base

from pipeops.errors import PipeOpsError
from pipeops.measuring.commands import PriceInputs, price_set
from pipeops.models.architectures import architecture
from pipeops.operators.builtin import PruningSection, VocabularySection
from pipeops.operators.vocabulary import prune_backbones
from pipeops.pipeline import Pipeline
from pipeops.settings import ExitTraining


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """A backbone, and what V makes of it."""
    folder = tmp_path_factory.mktemp("backbones")
    base = write_base(folder / "whole", "bert", "WordPiece")
    prune_backbones(base, {base: folder / "pruned"}, lambda: [words_of(3, 20)], VocabularySection())
    (folder / "lengths.txt").write_text("5\n9\n")
    return folder


def inputs(folder, name):
    sections = {"exits": ExitTraining(), "vocabulary": VocabularySection(), "pruning": PruningSection()}
    return PriceInputs(str(folder / name), folder / "lengths.txt", None, None, sections)


def test_what_has_v_is_priced_with_its_tokens_next_to_an_o_that_has_all(backbones):
    whole, pruned = (inputs(backbones, name) for name in ("whole", "pruned"))
    assert pruned.original == whole.original
    tokens = architecture(str(backbones / "pruned")).vocab_size
    assert tokens < whole.original.vocab_size
    for name in ("V", "VD", "VEDP"):
        with_v = pruned.shape(Pipeline(name))
        assert with_v.vocab_size == tokens
        without = whole.shape(Pipeline(name.removeprefix("V") or "O"))
        assert whole.original.vocab_size == without.vocab_size
        assert with_v.num_layers == without.num_layers
        assert without.parameters - with_v.parameters == (without.vocab_size - tokens) * without.hidden_size
    assert pruned.shape(Pipeline("O")) == whole.original


def test_a_list_holds_what_starts_from_the_backbone(backbones):
    whole, pruned = (inputs(backbones, name).pipelines for name in ("whole", "pruned"))
    assert (len(whole), len(pruned)) == (13, 14)
    assert whole[:3] == ["O", "D", "P"]
    assert pruned[:3] == ["O", "V", "VD"]


@pytest.mark.parametrize(
    ("name", "operators", "message"),
    [
        (
            "whole",
            "VD",
            r"--backbone: .*whole has its whole vocabulary, but VD has V; name the one that `pip",
        ),
        ("pruned", "D", r"--backbone: .*pruned has a pruned vocabulary, but D has no V; name the one that V"),
    ],
)
def test_another_backbone_is_refused(backbones, tmp_path, name, operators, message):
    with pytest.raises(PipeOpsError, match=message):
        price_set(operators, inputs(backbones, name), tmp_path / "x.csv")
    assert not list(tmp_path.iterdir())
