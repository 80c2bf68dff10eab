"""Classify texts with the model in this folder: texts in, labels and confidences out.

    python classify.py "a text"
    python classify.py --file texts.txt
    python classify.py < texts.txt

A file has one text a line, in UTF-8. A task with two texts takes both in one line, separated by a tab, or as
two arguments. The answer is a line with the label, a tab and the probability that the model gives it.

Texts of like length are run together; answers keep the order of the texts. Where the weights are int8 an
answer then depends a little on the texts beside it, so such a model runs them one by one, unless
--batch-tokens is given.

A longer input than the model was trained with is cut, as in training, and standard error says so.
Needs onnxruntime, tokenizers, numpy, and the files beside this one.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

try:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer
except ImportError as error:
    sys.exit(f"error: {error}; run `pip install onnxruntime tokenizers numpy`")
except KeyboardInterrupt:
    sys.exit(130)

AGAIN = "deploy the model again"
BATCH_TOKENS = 512
"""How many tokens are run together where answers do not depend on it. More is no faster."""
MOST_THREADS = 256
"""Far more than these take a machine's memory, and never answer."""
READ = 1 << 16
"""Bytes of texts that are read at a time, at most."""
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
        folder: holds model.onnx, batch.onnx, tokenizer.json, labels.json and policy.json.
        threads: how many compute.
        batch_tokens: how many tokens of inputs are run together; None: as the policy says; 0: one input at a
            time, in the least time.

    Raises:
        Refused: a file is absent or damaged, or the files are not of one model.
    """

    def __init__(self, folder: Path, threads: int = 1, *, batch_tokens: int | None = 0) -> None:
        before = _states(folder)
        _check_digests(folder)
        policy, labels = (_read_json(folder / name) for name in ("policy.json", "labels.json"))
        try:
            self.labels = [str(labels[str(number)]) for number in range(len(labels))]
            self.columns = [str(name) for name in policy["text_columns"]]
            self.max_length = int(policy["max_length"])
            self.padding = bool(policy["padding"])
            self.thresholds = np.array(policy["thresholds"], dtype=np.float32)
            self.batch_tokens = int(policy["batch_tokens"]) if batch_tokens is None else batch_tokens
            if not 1 <= len(self.columns) <= 2:
                raise ValueError(f"{len(self.columns)} columns of texts")
            if self.thresholds.ndim != 1 or not np.isfinite(self.thresholds).all():
                raise ValueError("thresholds that are no numbers")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Refused(f"{folder}: policy.json or labels.json is damaged ({error!r}); {AGAIN}") from None
        self.tokenizer = _load(folder / "tokenizer.json", lambda path: Tokenizer.from_file(str(path)))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.graph = "batch.onnx" if self.batch_tokens else "model.onnx"
        # Without it sums of int8 products overflow in 16 bits on x86 CPUs that have no VNNI.
        options.add_session_config_entry("session.x64quantprecision", "1")
        # By default layers of 1 GiB together are refused; the file of a graph holds at most twice that.
        options.add_session_config_entry("session.function_expansion_byte_limit", str(1 << 31))
        if not (folder / "model.onnx").is_file():
            raise Refused(f"{folder / 'model.onnx'}: not found; {AGAIN}")
        self.session = _load(
            folder / self.graph,
            lambda path: onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["SkipLayerNormFusion"],  # the fused kernel is slower than its parts
            ),
        )
        self._check(folder)
        if _states(folder) != before:
            raise Refused(f"{folder}: was deployed anew while it was read; run again")
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
        return self._run(ids[None], mask[None], [truncated])[0]

    def answers(self, inputs: Sequence[tuple[Any, Any, bool]]) -> list[Answer]:
        """Answer inputs as :meth:`prepare` returns them, in their order."""
        found: dict[int, Answer] = {}
        for batch in batches([len(ids) for ids, _, _ in inputs], self.batch_tokens):
            ids, mask = stacked(*([inputs[index][kind] for index in batch] for kind in (0, 1)))
            answers = self._run(ids, mask, [inputs[index][2] for index in batch])
            found |= zip(batch, answers, strict=True)
        return [found[index] for index in range(len(inputs))]

    def _run(self, ids: Any, mask: Any, truncated: Sequence[bool]) -> list[Answer]:
        inputs = {"input_ids": ids, "attention_mask": mask}
        if len(self.thresholds):
            inputs["thresholds"] = self.thresholds
        logits, exit_layers = self.session.run(None, inputs)
        probabilities = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        best = logits.argmax(axis=-1)
        sure = probabilities[np.arange(len(best)), best]
        labels = [self.labels[number] for number in best]
        return list(map(Answer, labels, sure.tolist(), exit_layers.tolist(), truncated))

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
            raise Refused(f"{folder}: {self.graph} and labels.json name other labels; {AGAIN}")
        if found.get("pipeops.max_length") != str(self.max_length):
            raise Refused(f"{folder}: {self.graph} and policy.json name another longest input; {AGAIN}")
        # Whose weights these are is asked after they were read: a folder may be written anew meanwhile.
        if self.graph == "batch.onnx" and found.get("pipeops.weights") != _sha256(folder / "model.onnx"):
            raise Refused(f"{folder}: batch.onnx and model.onnx are of two models; {AGAIN}")
        takes = {value.name: value.shape for value in self.session.get_inputs()}
        if takes.get("thresholds", [0])[0] != len(self.thresholds):
            raise Refused(
                f"{folder}: {self.graph} takes another number of thresholds than policy.json; {AGAIN}"
            )
        if bool(self.tokenizer.padding) != self.padding:
            raise Refused(f"{folder}: tokenizer.json and policy.json differ in padding; {AGAIN}")
        if (self.tokenizer.truncation or {}).get("max_length") != self.max_length:
            raise Refused(f"{folder}: tokenizer.json and policy.json name another longest input; {AGAIN}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
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
    parser.add_argument(
        "--batch-tokens",
        type=int,
        help="tokens of texts that are run together, padding included; 0: one text at a time "
        f"(default: {BATCH_TOKENS}, and 0 where the weights are int8)",
    )
    asked = parser.parse_args(arguments)
    if asked.text and asked.file:
        parser.error("give texts or --file, not both")
    if not 1 <= asked.threads <= MOST_THREADS:
        parser.error(f"--threads: {asked.threads} is no number of threads; give 1 to {MOST_THREADS}")
    if asked.threads > (cores := os.cpu_count() or 1):
        print(f"warning: --threads: {asked.threads} on {cores} cores, so they wait in turns", file=sys.stderr)
    if (asked.batch_tokens or 0) < 0:
        parser.error(f"--batch-tokens: {asked.batch_tokens} is no number of tokens; give 0 or more")
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
    together = 0 if asked.text else asked.batch_tokens
    classifier = Classifier(Path(__file__).absolute().parent, asked.threads, batch_tokens=together)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    prepared = _Prepared(classifier, refuse_long=asked.refuse_long)
    for group in _inputs(asked, pair=len(classifier.columns) > 1):
        inputs, refused = prepared.of(group)
        for answer in classifier.answers(inputs):
            if asked.json:
                print(json.dumps(answer._asdict(), ensure_ascii=False))
            else:
                print(f"{answer.label}\t{answer.confidence:.4f}")
        sys.stdout.flush()
        if refused:
            raise refused
    prepared.say_how_many()


class _Prepared:
    """Prepares inputs for the model, and warns of those that it can say little of."""

    def __init__(self, classifier: Classifier, *, refuse_long: bool) -> None:
        self.classifier, self.refuse_long = classifier, refuse_long
        self.cut = self.strange = 0

    def of(self, group: list[tuple[str, list[str]]]) -> tuple[list[tuple[Any, Any, bool]], Refused | None]:
        """Prepare inputs up to the first that is refused, if one is."""
        found = []
        for where, texts in group:
            try:
                found.append(self._one(where, texts))
            except Refused as error:
                return found, Refused(f"{where}: {error}")
        return found, None

    def _one(self, where: str, texts: list[str]) -> tuple[Any, Any, bool]:
        ids, mask, truncated = self.classifier.prepare(*texts)
        if truncated:
            remedy = "shorten it, or leave --refuse-long out" if self.refuse_long else "its end was cut"
            message = f"too long, the model takes at most {self.classifier.max_length} tokens; {remedy}"
            if self.refuse_long:
                raise Refused(message)
            self.cut += 1
            if self.cut == 1:
                print(f"warning: {where}: {message}", file=sys.stderr)
        if self.classifier.unknown(ids, mask) >= MOSTLY:
            self.strange += 1
            if self.strange == 1:
                print(f"warning: {where}: the model knows hardly any of these words", file=sys.stderr)
        return ids, mask, truncated

    def say_how_many(self) -> None:
        if self.cut > 1:
            print(f"warning: {self.cut} texts were cut in all", file=sys.stderr)
        if self.strange > 1:
            print(
                f"warning: {self.strange} texts have hardly any words that the model knows", file=sys.stderr
            )


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Say which inputs to run together: those of like length, so that little is padding.

    Args:
        lengths: of the inputs, in tokens.
        tokens: of a batch, padding included, at most; a longer input is a batch of its own.

    Yields:
        Numbers of inputs.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def stacked(*kinds: Sequence[Any]) -> list[Any]:
    """Pad the rows of each kind with 0 to one length, int64 (rows, length). Which token pads is no matter."""
    return [
        np.stack([np.pad(row, (0, max(map(len, rows)) - len(row))) for row in rows]).astype(np.int64)
        for rows in kinds
    ]


def _longest_first(lengths: list[int], room: int) -> list[int]:
    """How many tokens of each text are kept: the longer one is cut first, then both alike."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    shorter, longer = sorted(lengths)
    if shorter + longer > room:
        longer = max(room - shorter, room - room // 2)
        shorter = min(shorter, room // 2)
    return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]


def _inputs(asked: argparse.Namespace, *, pair: bool) -> Iterator[list[tuple[str, list[str]]]]:
    """Yield inputs and where they are from, as many as can be read without waiting.

    In a single text a tab is part of the text.
    """
    if asked.text:
        yield [("text", asked.text[0].split("\t") if pair and len(asked.text) == 1 else asked.text)]
        return
    name, number = str(asked.file or "standard input"), 0
    for lines in _lines(asked.file, name):
        group: list[tuple[str, list[str]]] = []
        for line in lines:
            number += 1
            where = f"{name}, line {number}"
            line = line.removesuffix(b"\r")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                yield group
                raise Refused(f"{where}: is not UTF-8 ({error.reason}); convert it") from None
            group.append((where, text.split("\t") if pair else [text]))
        yield group


def _lines(path: Path | None, name: str) -> Iterator[list[bytes]]:
    """Yield the lines of a file or of standard input as they come."""
    rest = b""
    try:
        with path.open("rb") if path else sys.stdin.buffer as file:
            while block := file.read1(READ):  # type: ignore[union-attr]
                *lines, rest = (rest + block).split(b"\n")
                yield lines
    except OSError as error:
        raise Refused(f"{name}: cannot be read ({error.strerror}); name a file of texts") from None
    if rest:
        yield [rest]


def _files(folder: Path) -> list[Path]:
    """Those that are read, as far as they are there."""
    names = ("model.onnx", "batch.onnx", "tokenizer.json", "labels.json", "policy.json")
    return [folder / name for name in names if (folder / name).is_file()]


def _states(folder: Path) -> list[tuple[Path, int, int, int]]:
    """What tells the files from others of these names."""
    found = [(path, path.stat()) for path in _files(folder)]
    return [(path, state.st_ino, state.st_size, state.st_mtime_ns) for path, state in found]


def _check_digests(folder: Path) -> None:
    """Refuse files that are not what was written. A digest finds damage, not malice."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        print(f"warning: {sums}: not found, so damage would not be seen; {AGAIN}", file=sys.stderr)
        return
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for path in _files(folder):
        if _sha256(path) != digests.get(path.name):
            raise Refused(f"{path}: damaged (its bytes are not those of SHA256SUMS); {AGAIN}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
