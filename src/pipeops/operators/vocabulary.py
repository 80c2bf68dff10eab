"""V: encoders without the embeddings of tokens that the data do not use. Nothing is trained.

V prunes the backbones first, before O is trained; then it prunes O. What comes after starts from both.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from pipeops.data.vocabulary import Texts, kept_tokens, refuse_other_pieces, remapped, used_tokens
from pipeops.errors import PipeOpsError
from pipeops.files import expanded
from pipeops.models.architectures import known_architecture
from pipeops.models.backbones import load_tokenizer, prune_backbone
from pipeops.models.families.declaration import BACKBONE
from pipeops.models.families.registry import FAMILIES
from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.models.vocabulary import VOCABULARY, Vocabulary, read_vocabulary
from pipeops.operators.base import Context, Finished, Stage, Stages, Trainee, exits_loss
from pipeops.operators.builtin import VocabularySection
from pipeops.reading import reading


def prune_backbones(
    backbone: Path, outputs: Mapping[Path, Path], texts: Texts, settings: VocabularySection
) -> Vocabulary:
    """Write encoders that know only the tokens that texts need.

    Args:
        backbone: folder of the encoder whose tokenizer is pruned.
        outputs: by folder of an encoder with that tokenizer, the folder to write.
        texts: the training texts.
        settings: what else is kept.

    Returns:
        What is kept of the vocabulary.

    Raises:
        PipeOpsError: V cannot remap the tokenizer, or a text file cannot be read.
    """
    encoder, theirs = known_architecture(str(backbone), "--backbone"), load_tokenizer(backbone)
    tokenizer, source = theirs.backend_tokenizer, str(backbone)
    reserved = FAMILIES[encoder.family].reserved_positions(encoder.pad_token_id)

    def all_texts() -> Iterator[Sequence[str]]:
        yield from texts()
        yield from map(_lines, settings.texts)

    used = used_tokens(tokenizer, all_texts, source)
    # Where positions start depends on the id of the padding token, so that stays, and all before it.
    wanted = {*used, *theirs.all_special_ids, *range(reserved)}
    kept = kept_tokens(tokenizer, wanted, source, size=settings.size)
    pruned = remapped(tokenizer, kept, source)
    refuse_other_pieces(tokenizer, pruned, kept, all_texts, source)
    for folder, output in outputs.items():
        rows = known_architecture(str(folder), "--backbone").vocab_size
        prune_backbone(folder, output, Vocabulary(tuple(kept), rows), pruned)
    return Vocabulary(tuple(kept), encoder.vocab_size)


def _lines(path: str) -> list[str]:
    file = expanded(path)
    with reading(file, wrong="no text", again="write it in UTF-8"):
        return file.read_text(encoding="utf-8").splitlines()


def prune_vocabulary(context: Context) -> Stages:
    """The parent, taken as it is, with the tokens of the backbone's vocabulary.

    Raises:
        PipeOpsError: the backbone is not one that V made, or it had another vocabulary than the parent.
    """
    vocabulary, parent = read_vocabulary(context.backbone), context.teacher
    if vocabulary.before != parent.config.vocab_size:
        raise PipeOpsError(
            f"{context.backbone / VOCABULARY}: is of {vocabulary.before:,} tokens, but the parent knows "
            f"{parent.config.vocab_size:,}; name the vocabulary of its backbone"
        )

    def pruned(_: Finished) -> Trainee:
        return Trainee(model=with_tokens(parent, vocabulary), loss=exits_loss(context.exits.exit_loss))

    return [Stage(name="pruning", prepare=pruned, trains=False)]


def with_tokens(
    model: MultiExitForSequenceClassification, vocabulary: Vocabulary
) -> MultiExitForSequenceClassification:
    """Copy with the embeddings of the kept tokens only, at their new ids."""
    shape = vocabulary.applied(model.config.shape)
    pruned = MultiExitForSequenceClassification(model.config.reshaped(shape))
    weights, words = model.state_dict(), f"{BACKBONE}.{shape.layout.words}.weight"
    kept = torch.tensor(vocabulary.kept, device=model.device)
    pruned.load_state_dict({**weights, words: weights[words][kept]})
    return pruned.to(model.device).eval()
