"""Pretrained encoders: fetched from a hub or a folder, checked, kept in one form (float32 safetensors)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from pipeops.errors import PipeOpsError
from pipeops.integrity import sealed_folder, verify
from pipeops.models.architectures import other_family
from pipeops.models.families.registry import supported_family
from pipeops.models.foreign import refuse_fewer_weights, refuse_unsafe
from pipeops.models.vocabulary import VOCABULARY, Vocabulary
from pipeops.models.weights import WEIGHTS
from pipeops.reading import reading, reason

LOADING: Mapping[str, Any] = {
    "dtype": torch.float32,
    "use_safetensors": True,  # nothing is unpickled
    "trust_remote_code": False,
    "output_loading_info": True,
}
"""How foreign models are loaded."""


def load_backbone(folder: Path) -> PreTrainedModel:
    """Load the encoder that :func:`fetch_backbone` (or the pretraining) put into ``folder``."""
    verify(folder / "config.json", folder / WEIGHTS, again=_again(folder))
    return _load_weights(str(folder))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside a backbone or a trained model.

    Raises:
        PipeOpsError: there is none, or it is damaged.
    """
    path = folder / "tokenizer.json"
    again = _again(folder)
    verify(*(folder / name for name in ("tokenizer_config.json", "config.json")), again=again)
    with reading(path, absent=f"fetch the backbone into {folder} first", wrong="no tokenizer", again=again):
        path.open("rb").close()  # or the library looks for it in the hub
        refuse_unsafe(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def fetch_backbone(source: str, output: Path, *, teacher: Path | None = None) -> None:
    """Bring a pretrained encoder and its tokenizer into ``output``.

    Args:
        source: a hub id or a folder.
        output: folder for ``config.json``, ``model.safetensors`` and the tokenizer's files.
        teacher: folder of the backbone whose student this one will be; its tokenizer and width must agree.

    Raises:
        PipeOpsError: the source cannot be read, is of another family, or is no student of ``teacher``.
    """
    config = read_source(AutoConfig, source)
    supported_family(config.to_dict(), source)
    tokenizer = read_source(AutoTokenizer, source)
    if len(tokenizer) < config.vocab_size // 2:
        raise PipeOpsError(
            f"backbone '{source}': its tokenizer has {len(tokenizer)} tokens, its vocabulary "
            f"{config.vocab_size}; add the tokenizer's files"
        )
    if teacher is not None:
        _check_student(source, config, tokenizer, teacher)
    encoder = _load_weights(source)
    save_backbone(encoder, tokenizer, output)


def save_backbone(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write an encoder and its tokenizer; the weights come last, so that they mark a whole folder."""
    with sealed_folder(output, last=WEIGHTS) as folder:
        tokenizer.save_pretrained(folder)
        encoder.save_pretrained(folder)


def prune_backbone(folder: Path, output: Path, vocabulary: Vocabulary, tokenizer: Tokenizer) -> None:
    """Write an encoder with the embeddings of some tokens only, and the tokenizer that knows those.

    Args:
        folder: the encoder, with its tokenizer.
        output: folder for the same files, and the vocabulary.
        vocabulary: which tokens are kept.
        tokenizer: with their new ids.
    """
    encoder, theirs = load_backbone(folder), load_tokenizer(folder)
    words = encoder.get_input_embeddings().weight.detach()[list(vocabulary.kept)]
    encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(words))
    encoder.config.vocab_size = len(words)
    for name, number in encoder.config.to_dict().items():
        if name.endswith("_token_id") and number is not None:
            setattr(encoder.config, name, vocabulary.new(number) if number in vocabulary.kept else None)
    ours = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=theirs.model_max_length,
        padding_side=theirs.padding_side,
        truncation_side=theirs.truncation_side,
        **theirs.special_tokens_map,
    )
    with sealed_folder(output, last=WEIGHTS) as written:
        ours.save_pretrained(written)
        encoder.save_pretrained(written)
        (written / VOCABULARY).write_text(vocabulary.to_json())


def _again(folder: Path) -> str:
    return f"fetch the backbone into {folder} again"


def read_source(auto_class: Any, source: str) -> Any:
    """Load a configuration or tokenizer of a hub or folder.

    Raises:
        PipeOpsError: it cannot be read.
    """
    refuse_unsafe(source)
    try:
        return auto_class.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of damaged files the libraries raise anything
        remedy = "mend or fetch it again" if Path(source).is_dir() else "name a folder, or reach the hub"
        raise PipeOpsError(f"backbone '{source}' cannot be read ({reason(error)}); {remedy}") from None


def quiet_transformers() -> None:
    """Let transformers print errors only: what else there is to say, callers say."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _load_weights(source: str) -> PreTrainedModel:
    quiet_transformers()
    refuse_unsafe(source)
    refuse_fewer_weights(source)
    try:
        encoder, report = AutoModel.from_pretrained(source, **LOADING)
    except SafetensorError as error:
        raise PipeOpsError(f"{source}/{WEIGHTS}: not readable ({reason(error)}); fetch it again") from None
    except Exception as error:
        raise PipeOpsError(
            f"backbone '{source}': no safetensors weights can be loaded ({reason(error)}); fetch it again"
        ) from None
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise PipeOpsError(
            f"{source}/{WEIGHTS}: lacks {len(missing)} tensors of its config.json, {missing[0]} first; "
            "fetch the model again"
        )
    return encoder


def _check_student(
    source: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, teacher: Path
) -> None:
    expected = read_source(AutoConfig, str(teacher))
    if problem := other_family(source, config.model_type, expected.model_type):
        raise PipeOpsError(problem)
    if config.hidden_size != expected.hidden_size:
        raise PipeOpsError(
            f"model.student: '{source}' has hidden size {config.hidden_size}, the backbone "
            f"{expected.hidden_size}; the losses on hidden states need the same width"
        )
    if tokenizer.get_vocab() != load_tokenizer(teacher).get_vocab():
        raise PipeOpsError(
            f"model.student: '{source}' has another tokenizer than the backbone; "
            "the losses on hidden states need the same tokens"
        )
