"""Classify texts with the model in this folder: texts in, labels and confidences out.

    python classify.py "a text"
    python classify.py --file texts.txt
    python classify.py < texts.txt

A file has one text a line, in UTF-8. A task with two texts takes both in one line, separated by a tab, or as
two arguments. The answer is a line with the label, a tab and the probability that the model gives it.

A longer input than the model was trained with is cut, as in training, and standard error says so.
Needs onnxruntime, tokenizers, numpy, and the files beside this one.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

try:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer
except ImportError as error:
    sys.exit(f"error: {error}; run `pip install onnxruntime tokenizers numpy`")

AGAIN = "deploy the model again"
MOSTLY = 0.5
"""Part of unknown words from which on an answer means little."""


class Refused(Exception):
    """One line for people: what is wrong, where, and the remedy."""


class Answer(NamedTuple):
    """What the model says of one input."""

    label: str
    confidence: float
    """Probability of the label, 0 to 1."""
    exit_layer: int
    """The layer that the input left the model after, counted from 1."""
    truncated: bool
    """Whether the input was too long and its end was cut."""


class Classifier:
    """The model of a deployed folder. ``Classifier(folder)("a text")`` is an :class:`Answer`.

    Args:
        folder: holds model.onnx, tokenizer.json, labels.json and policy.json.
        threads: how many compute.

    Raises:
        Refused: a file is absent or damaged, or the files are not of one model.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        _check_digests(folder)
        policy, labels = (_read_json(folder / name) for name in ("policy.json", "labels.json"))
        try:
            self.labels = [str(labels[str(number)]) for number in range(len(labels))]
            self.columns = [str(name) for name in policy["text_columns"]]
            self.max_length = int(policy["max_length"])
            self.padding = bool(policy["padding"])
            self.thresholds = np.array(policy["thresholds"], dtype=np.float32)
            if not 1 <= len(self.columns) <= 2:
                raise ValueError(f"{len(self.columns)} columns of texts")
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"{folder}: policy.json or labels.json is damaged ({error!r}); {AGAIN}") from None
        self.tokenizer = _load(folder / "tokenizer.json", lambda path: Tokenizer.from_file(str(path)))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # By default layers of 1 GiB together are refused; the file of a graph holds at most twice that.
        options.add_session_config_entry("session.function_expansion_byte_limit", str(1 << 31))
        self.session = _load(
            folder / "model.onnx",
            lambda path: onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["SkipLayerNormFusion"],  # the fused kernel is slower than its parts
            ),
        )
        self._check(folder)
        self.cut_left = self.tokenizer.truncation["direction"] == "left"
        self.pad_token_id = self.tokenizer.padding["pad_id"] if self.padding else None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        unknown = self.tokenizer.token_to_id(getattr(self.tokenizer.model, "unk_token", None) or "")
        self.unknown_id = -1 if unknown is None else unknown

    def __call__(self, *texts: str) -> Answer:
        """Classify one input: a text, or both texts of a pair.

        Raises:
            Refused: another number of texts, or a text that is no Unicode or has no tokens.
        """
        return self.answer(*self.prepare(*texts))

    def answer(self, ids: Any, mask: Any, truncated: bool) -> Answer:
        """Answer one input as :meth:`prepare` returns it."""
        inputs = {"input_ids": ids[None], "attention_mask": mask[None]}
        if len(self.thresholds):
            inputs["thresholds"] = self.thresholds
        logits, exit_layer = self.session.run(None, inputs)
        probabilities = np.exp(logits[0].astype(np.float64) - logits[0].max())
        probabilities /= probabilities.sum()
        best = int(logits[0].argmax())
        return Answer(self.labels[best], float(probabilities[best]), int(exit_layer[0]), truncated)

    def unknown(self, ids: Any, mask: Any) -> float:
        """Part of the texts' tokens that stand for words which the model does not know, 0 to 1."""
        special = self.tokenizer.num_special_tokens_to_add(len(self.columns) > 1)
        count = int((ids[mask == 1] == self.unknown_id).sum())
        return min(1.0, count / max(1, int(mask.sum()) - special))

    def prepare(self, *texts: str) -> tuple[Any, Any, bool]:
        """Tokenise one input as ``encode`` does, unless it cannot be classified.

        Raises:
            Refused: another number of texts, or a text that is no Unicode or has no tokens.
        """
        if len(texts) != len(self.columns):
            raise Refused(
                f"{len(texts)} texts where the model takes {len(self.columns)}: {', '.join(self.columns)}; "
                "separate two texts by one tab"
            )
        for text in texts:
            if not _is_unicode(text):
                raise Refused("a text that is not UTF-8; convert it")
        ids, mask, truncated = self.encode(*texts)
        if not mask.any():
            raise Refused("a text without tokens; give one with words")
        return ids, mask, truncated

    def encode(self, *texts: str) -> tuple[Any, Any, bool]:
        """Tokenise one input as in training.

        The library would truncate too, but of two long texts it keeps every combination of what it cut.

        Returns:
            Token ids and attention mask, int64 of shape (length,), and whether the input was too long.
        """
        tokens = self.tokenizer.encode(*texts)
        ids = np.array(tokens.ids, dtype=np.int64)
        if truncated := len(ids) > self.max_length:
            of_text = np.array([-1 if index is None else index for index in tokens.sequence_ids])
            places = [np.flatnonzero(of_text == index) for index in range(len(texts))]
            room = self.max_length - int((of_text < 0).sum())
            kept = [np.flatnonzero(of_text < 0)]
            for place, count in zip(
                places, _longest_first([len(place) for place in places], room), strict=True
            ):
                kept.append(place[len(place) - count :] if self.cut_left else place[:count])
            ids = ids[np.sort(np.concatenate(kept))]
        mask = np.ones_like(ids)
        if self.pad_token_id is not None:
            more = (0, self.max_length - len(ids))
            ids, mask = np.pad(ids, more, constant_values=self.pad_token_id), np.pad(mask, more)
        return ids, mask, truncated

    def _check(self, folder: Path) -> None:
        """Refuse files of several models, such as a copy that was interrupted leaves."""
        found = self.session.get_modelmeta().custom_metadata_map
        if json.loads(found.get("pipeops.labels", "null")) != self.labels:
            raise Refused(f"{folder}: model.onnx and labels.json name other labels; {AGAIN}")
        if found.get("pipeops.max_length") != str(self.max_length):
            raise Refused(f"{folder}: model.onnx and policy.json name another longest input; {AGAIN}")
        takes = {value.name: value.shape for value in self.session.get_inputs()}
        if takes.get("thresholds", [0])[0] != len(self.thresholds):
            raise Refused(
                f"{folder}: model.onnx takes another number of thresholds than policy.json; {AGAIN}"
            )
        if bool(self.tokenizer.padding) != self.padding:
            raise Refused(f"{folder}: tokenizer.json and policy.json differ in padding; {AGAIN}")
        if (self.tokenizer.truncation or {}).get("max_length") != self.max_length:
            raise Refused(f"{folder}: tokenizer.json and policy.json name another longest input; {AGAIN}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n    python")[0],
        epilog="Without a text and without --file, texts are read from standard input, one a line.",
    )
    parser.add_argument("text", nargs="*", help="a text, or both texts of a pair")
    parser.add_argument("--file", type=Path, help="texts, one a line, in UTF-8")
    parser.add_argument("--json", action="store_true", help="print a JSON object per text")
    parser.add_argument(
        "--refuse-long",
        action="store_true",
        help="end with an error where an input is too long; default: cut it",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that compute (default: 1)")
    asked = parser.parse_args(arguments)
    if asked.text and asked.file:
        parser.error("give texts or --file, not both")
    if asked.threads < 1:
        parser.error(f"--threads: {asked.threads} is no number of threads; give 1 or more")
    try:
        _run(asked)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # whoever read the answers has enough, such as head
            print(f"error: {error}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(asked: argparse.Namespace) -> None:
    classifier = Classifier(Path(__file__).resolve().parent, asked.threads)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    cut = strange = 0
    for where, texts in _inputs(asked, pair=len(classifier.columns) > 1):
        try:
            ids, mask, truncated = classifier.prepare(*texts)
        except Refused as error:
            raise Refused(f"{where}: {error}") from None
        answer = classifier.answer(ids, mask, truncated)
        if classifier.unknown(ids, mask) >= MOSTLY:
            strange += 1
            if strange == 1:
                print(f"warning: {where}: the model knows hardly any of these words", file=sys.stderr)
        if answer.truncated:
            cut += 1
            remedy = "shorten it, or leave --refuse-long out" if asked.refuse_long else "its end was cut"
            message = f"{where}: too long, the model takes at most {classifier.max_length} tokens; {remedy}"
            if asked.refuse_long:
                raise Refused(message)
            if cut == 1:
                print(f"warning: {message}", file=sys.stderr)
        if asked.json:
            print(json.dumps(answer._asdict(), ensure_ascii=False), flush=True)
        else:
            print(f"{answer.label}\t{answer.confidence:.4f}", flush=True)
    if cut > 1:
        print(f"warning: {cut} texts were cut in all", file=sys.stderr)
    if strange > 1:
        print(f"warning: {strange} texts have hardly any words that the model knows", file=sys.stderr)


def _longest_first(lengths: list[int], room: int) -> list[int]:
    """How many tokens of each text are kept: the longer one is cut first, then both alike."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    shorter, longer = sorted(lengths)
    if shorter + longer > room:
        longer = max(room - shorter, room - room // 2)
        shorter = min(shorter, room // 2)
    return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]


def _inputs(asked: argparse.Namespace, *, pair: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each input and where it is from. In a single text a tab is part of the text."""
    if asked.text:
        yield "text", asked.text[0].split("\t") if pair and len(asked.text) == 1 else asked.text
        return
    name = str(asked.file or "standard input")
    try:
        with asked.file.open("rb") if asked.file else sys.stdin.buffer as file:
            for number, line in enumerate(file, start=1):
                where = f"{name}, line {number}"
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise Refused(f"{where}: is not UTF-8 ({error.reason}); convert it") from None
                yield where, text.split("\t") if pair else [text]
    except OSError as error:
        raise Refused(f"{name}: cannot be read ({error.strerror}); name a file of texts") from None


def _check_digests(folder: Path) -> None:
    """Refuse files that are not what was written. A digest finds damage, not malice."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        print(f"warning: {sums}: not found, so damage would not be seen; {AGAIN}", file=sys.stderr)
        return
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in ("model.onnx", "tokenizer.json", "labels.json", "policy.json"):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digests.get(name):
                    raise Refused(f"{path}: damaged (its bytes are not those of SHA256SUMS); {AGAIN}")


def _read_json(path: Path) -> Any:
    found = _load(path, lambda path: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(found, dict):
        raise Refused(f"{path}: damaged (no JSON object); {AGAIN}")
    return found


def _load(path: Path, load: Any) -> Any:
    """Load a file; each library has errors of its own for a damaged one."""
    if not path.is_file():
        raise Refused(f"{path}: not found; {AGAIN}")
    try:
        return load(path)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise Refused(f"{path}: damaged ({reason}); {AGAIN}") from None


def _is_unicode(text: str) -> bool:
    """Whether it has no lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
