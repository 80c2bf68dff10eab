"""The built-in `tiny` backbone: a small RoBERTa, pretrained on generated text (masked language modelling)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from pipeops.data.synthetic import pretraining_text, vocabulary
from pipeops.models.architectures import TINY_ARCHITECTURE
from pipeops.models.backbones import save_backbone
from pipeops.settings import PretrainingSection
from pipeops.training.trainer import ReproducibleTrainer, trainer_arguments

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""RoBERTa's special tokens, in the order of its ids."""


def pretrain_tiny(output: Path, settings: PretrainingSection, tasks: Sequence[str]) -> None:
    """Pretrain the `tiny` backbone and write it with its tokenizer.

    Args:
        output: folder for ``config.json``, ``model.safetensors`` and the tokenizer's files.
        settings: with 0 epochs the weights stay random.
        tasks: the generated tasks that it is pretrained for.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(settings.threads)
    set_seed(settings.seed)
    tokenizer = word_tokenizer()
    model = RobertaForMaskedLM(_config(tokenizer))
    if settings.epochs:
        first, second = zip(*pretraining_text(settings.examples, tasks), strict=True)
        encoded = tokenizer(list(first), list(second), truncation=True)
        examples = [{"input_ids": ids} for ids in encoded["input_ids"]]
        with tempfile.TemporaryDirectory() as scratch:
            ReproducibleTrainer(
                lengths=[len(ids) for ids in encoded["input_ids"]],
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
                train_dataset=examples,
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
    start, pad, end, unknown, mask = SPECIAL_TOKENS
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, words[end]), (start, words[start]), trim_offsets=False, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TINY_ARCHITECTURE.max_length,
        bos_token=start,
        cls_token=start,
        pad_token=pad,
        eos_token=end,
        sep_token=end,
        unk_token=unknown,
        mask_token=mask,
    )


def _config(tokenizer: PreTrainedTokenizerFast) -> RobertaConfig:
    tiny = TINY_ARCHITECTURE
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
