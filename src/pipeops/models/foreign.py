"""Models from outside: refused before they are loaded where they would run code or take all memory.

Weights are safetensors only: the libraries are told so where they load them. Here is refused what they do not
refuse by themselves. A tokenizer's regular expression that takes for ever is not seen.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeops.errors import PipeOpsError
from pipeops.files import expanded, state_of
from pipeops.models.architectures import MOST_BYTES as OF_A_CONFIG
from pipeops.models.architectures import architecture_of
from pipeops.models.weights import WEIGHTS
from pipeops.reading import reading

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
MOST_BYTES: Mapping[str, int] = {
    CONFIG: OF_A_CONFIG,
    TOKENIZER_CONFIG: 2**23,
    TOKENIZER: 2**26,
    "vocab.txt": 2**25,
    "vocab.json": 2**25,
    "merges.txt": 2**25,
    "special_tokens_map.json": 2**23,
    "added_tokens.json": 2**23,
}
"""Files that are read whole, and far more than any encoder of our families has in them."""
MOST_CLASSES, MOST_TOKENS = 10**5, 2**22
MOST_GROWTH = 16
"""How many times longer a tokenizer may make a text before it cuts it into tokens."""
_AGAIN = "take a model that you trust"


def refuse_unsafe(source: str | Path) -> None:
    """Look at a model's small files.

    Args:
        source: a folder or a hub id; of a hub what is looked at is fetched.

    Raises:
        PipeOpsError: a file is absurdly large, names code of its own, or would take all memory.
    """
    for name in MOST_BYTES:
        if (path := _file(source, name)) is not None:
            _look(path, name, state_of(path))


def refuse_fewer_weights(source: str | Path) -> None:
    """Refuse a configuration of more weights than there are: for each that is missing, memory is taken.

    Raises:
        PipeOpsError: the configuration is of another model than the weights.
    """
    config, weights = (_file(source, name) for name in (CONFIG, WEIGHTS))
    if config is None or weights is None:  # the library says what is missing
        return
    with reading(config, wrong="no encoder's configuration", again=_AGAIN):
        found = architecture_of(json.loads(config.read_text(encoding="utf-8")), str(source))
    described, size = found.shape(num_labels=2).encoder_parameters, weights.stat().st_size
    if described > size:
        raise PipeOpsError(
            f"{config}: describes {described:,} weights, but {WEIGHTS} has {size:,} bytes; fetch it again"
        )


def refuse_unsafe_tokenizer(path: Path) -> None:
    """Look at a ``tokenizer.json``, where there is one; see :func:`refuse_unsafe`."""
    if path.is_file():
        _look(path, TOKENIZER, state_of(path))


def _file(source: str | Path, name: str) -> Path | None:
    folder = expanded(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils import cached_file

    missing = dict.fromkeys(("gated_repo", "missing_entries", "connection_errors"), False)
    try:
        found = cached_file(
            str(source), name, **{f"_raise_exceptions_for_{k}": v for k, v in missing.items()}
        )
    except (OSError, ValueError):  # said by whoever loads it
        return None
    return Path(found) if found else None


@cache
def _look(path: Path, name: str, state: tuple[int, ...]) -> None:
    """Once per process and state of the file."""
    size, *_ = state
    if size > MOST_BYTES[name]:
        raise PipeOpsError(
            f"{path}: has {size:,} bytes, more than {MOST_BYTES[name]:,}, which no such file has; {_AGAIN}"
        )
    if not name.endswith(".json"):
        return
    with reading(path, again=_AGAIN):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return
    if content.get("auto_map"):
        raise PipeOpsError(
            f"{path}: names code of its own (auto_map), which PipeOps never runs; remove the key if the "
            "model is a plain one"
        )
    if problem := _problem(name, content):
        raise PipeOpsError(f"{path}: {problem}; {_AGAIN}")


def _problem(name: str, content: dict[str, Any]) -> str:
    """What would take all memory; empty where nothing would."""
    if name == CONFIG:
        classes = content.get("num_labels", 0)
        return f"num_labels: {classes:,}" if isinstance(classes, int) and classes > MOST_CLASSES else ""
    if name == TOKENIZER_CONFIG:
        # Such as extra_ids, of which the library makes tokens. The longest input is often 10**30, for none.
        for key, value in content.items():
            if isinstance(value, int) and value > MOST_TOKENS and key != "model_max_length":
                return f"{key}: {value:,}"
    if name == TOKENIZER:
        growth = 1
        for step in _steps(content.get("normalizer")):
            growth *= max(1, len(str(step.get("content", ""))), len(str(step.get("prepend", ""))))
        if growth > MOST_GROWTH:
            return f"its normalizer makes a text up to {growth:,} times longer"
        padding = content.get("padding") or {}
        fixed = (padding.get("strategy") if isinstance(padding, dict) else None) or ""
        if isinstance(fixed, dict) and isinstance(fixed.get("Fixed"), int) and fixed["Fixed"] > MOST_TOKENS:
            return f"it pads to {fixed['Fixed']:,} tokens"
    return ""


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    """A tokenizer's normalizers, one after the other."""
    if isinstance(normalizer, dict):
        yield normalizer
        for step in normalizer.get("normalizers") or []:
            yield from _steps(step)
