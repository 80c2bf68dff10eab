"""The built-in `tiny` backbone: a small RoBERTa, pretrained by masked language modelling.

The text is generated, or that of one's own training rows.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

from pipeops.data.own import TEXTS, row_batches
from pipeops.data.synthetic import pretraining_text, vocabulary
from pipeops.errors import PipeOpsError
from pipeops.models.architectures import TINY_ARCHITECTURE, TINY_OF_OWN_ARCHITECTURE, Architecture
from pipeops.models.backbones import quiet_transformers, save_backbone
from pipeops.settings import PretrainingSection
from pipeops.training.trainer import ReproducibleTrainer, trainer_arguments

START, PAD, END, UNKNOWN, MASK = SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""RoBERTa's special tokens, in the order of its ids."""
CHARACTERS_PER_TOKEN = 16
"""What is read of a text that one's own `tiny` learns from, per token that it takes."""


def pretrain_tiny(output: Path, settings: PretrainingSection, tasks: Sequence[str]) -> None:
    """Pretrain the `tiny` backbone on generated text and write it with its tokenizer.

    Args:
        output: folder for ``config.json``, ``model.safetensors`` and the tokenizer's files.
        settings: with 0 epochs the weights stay random.
        tasks: the generated tasks that it is pretrained for.
    """
    tokenizer, encoded = word_tokenizer(), []
    if settings.epochs:
        first, second = zip(*pretraining_text(settings.examples, tasks), strict=True)
        encoded = tokenizer(list(first), list(second), truncation=True)["input_ids"]
    _pretrain(output, settings, TINY_ARCHITECTURE, tokenizer, encoded)


def pretrain_tiny_on(
    rows: Sequence[Path], output: Path, settings: PretrainingSection, *, max_length: int
) -> None:
    """Pretrain the `tiny` backbone on one's own texts, its tokenizer included, and write both.

    Args:
        rows: training rows; see :mod:`pipeops.data.own`. At most ``settings.examples`` of each are read.
        output: as of :func:`pretrain_tiny`.
        settings: where there are fewer texts than ``examples``, they are taken again.
        max_length: longer texts are cut, in tokens.

    Raises:
        PipeOpsError: rows are missing or damaged, or have no texts.
    """
    texts = [
        " ".join(text[: CHARACTERS_PER_TOKEN * max_length] for text in row).strip()
        for path in rows
        for batch in row_batches(path, examples=settings.examples)
        for row in zip(
            *(batch[name].to_pylist() for name in batch.column_names if name in TEXTS), strict=True
        )
    ]
    if not (texts := [text for text in texts if text]):
        raise PipeOpsError(f"{rows[0]}: has no texts to pretrain 'tiny' on; name another model.backbone")
    tokenizer = subword_tokenizer(texts)
    encoded = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    again = [encoded[index % len(encoded)] for index in range(settings.examples)] if settings.epochs else []
    _pretrain(output, settings, TINY_OF_OWN_ARCHITECTURE, tokenizer, again)


def _pretrain(
    output: Path,
    settings: PretrainingSection,
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    encoded: Sequence[list[int]],
) -> None:
    """Train on token ids, example by example; without any the weights stay random."""
    quiet_transformers()
    torch.set_num_threads(settings.threads)
    set_seed(settings.seed)
    model = RobertaForMaskedLM(_config(architecture, tokenizer))
    if encoded:
        with tempfile.TemporaryDirectory() as scratch:
            ReproducibleTrainer(
                lengths=[len(ids) for ids in encoded],
                length_grouped=True,
                step_size=settings.batch_size,
                model=model,
                args=trainer_arguments(
                    Path(scratch),
                    epochs=settings.epochs,
                    batch_size=settings.batch_size,
                    learning_rate=settings.learning_rate,
                    seed=settings.seed,
                    warmup_steps=0.1,
                    weight_decay=0.01,
                    adam_beta2=0.98,  # as RoBERTa's pretraining
                    save_strategy="no",
                    logging_steps=0.05,
                ),
                train_dataset=[{"input_ids": ids} for ids in encoded],
                # More and other replacements than BERT's: the text is far more regular than natural language,
                # and words that are replaced by others make the model compare the two sentences of a pair.
                data_collator=DataCollatorForLanguageModeling(
                    tokenizer, mlm_probability=0.3, mask_replace_prob=0.5, random_replace_prob=0.4
                ),
            ).train()
    save_backbone(model.roberta, tokenizer, output)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word of the generator, and RoBERTa's special tokens."""
    words = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _finished(tokenizer, TINY_ARCHITECTURE)


def subword_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer made from texts: RoBERTa's byte pairs in small, blind to case; no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=TINY_OF_OWN_ARCHITECTURE.vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return _finished(tokenizer, TINY_OF_OWN_ARCHITECTURE)


def _finished(tokenizer: Tokenizer, architecture: Architecture) -> PreTrainedTokenizerFast:
    """Give a tokenizer RoBERTa's special tokens."""
    end, start = ((token, SPECIAL_TOKENS.index(token)) for token in (END, START))
    tokenizer.post_processor = processors.RobertaProcessing(
        end, start, trim_offsets=False, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=architecture.max_length,
        bos_token=START,
        cls_token=START,
        pad_token=PAD,
        eos_token=END,
        sep_token=END,
        unk_token=UNKNOWN,
        mask_token=MASK,
    )


def _config(tiny: Architecture, tokenizer: PreTrainedTokenizerFast) -> RobertaConfig:
    return RobertaConfig(
        vocab_size=tiny.vocab_size,
        hidden_size=tiny.hidden_size,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        intermediate_size=tiny.ffn_size,
        max_position_embeddings=tiny.position_rows,
        type_vocab_size=tiny.segment_rows,
        layer_norm_eps=1e-5,
        initializer_range=0.05,  # 0.02 is for a width of 768
        hidden_dropout_prob=0.0,  # so small a model underfits
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
