"""A folder that classifies texts with onnxruntime, tokenizers and numpy alone, without torch or PipeOps."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from tokenizers import Tokenizer

from pipeops.errors import PipeOpsError
from pipeops.integrity import SUMS, sealed_folder
from pipeops.models.foreign import refuse_unsafe_tokenizer
from pipeops.models.shape import ModelShape, read_config
from pipeops.onnx import graphs
from pipeops.onnx.classify import BATCH_TOKENS
from pipeops.onnx.export import write
from pipeops.onnx.graphs import (
    batch_graph,
    metadata_of,
    refuse_other_model,
    with_confidence,
    with_metadata,
    with_weights_in,
)
from pipeops.onnx.paths import graph_path
from pipeops.pipeline import Pipeline
from pipeops.provenance import json_text
from pipeops.reading import reading
from pipeops.settings import Confidence

MODEL, BATCH, TOKENIZER, LABELS, POLICY = (
    "model.onnx",
    "batch.onnx",
    "tokenizer.json",
    "labels.json",
    "policy.json",
)
SCRIPT, CARD = "classify.py", "README.md"
FILES = (MODEL, BATCH, TOKENIZER, LABELS, POLICY, SCRIPT, CARD, SUMS)
"""What a deployed folder holds."""
MOST_SURE = 2.0
"""Largest threshold of a confidence: any above 1 never leaves early."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """An exported model with what its checkpoint knows of texts and classes."""

    graph: onnx.ModelProto
    """With early exits, in the pipeline's precision."""
    shape: ModelShape
    confidence: Confidence
    """What its thresholds are compared with."""
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    tokenizer: Tokenizer
    truncation_side: str
    """``right`` or ``left``: which end of a text that is too long is cut."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a deployed model is run: the content of ``policy.json``."""

    pipeline: str
    confidence: Confidence
    """What thresholds are compared with."""
    exit_layers: tuple[int, ...]
    thresholds: tuple[float, ...]
    """One per exit but the last."""
    max_length: int
    """Longest input in tokens."""
    padding: bool
    """Whether inputs are padded to ``max_length``: not with L."""
    text_columns: tuple[str, ...]
    """What the texts of an input are: one name, or two for a pair."""
    batch_tokens: int
    """Tokens of inputs that are run together: 0, one at a time, with Q, whose answers would depend on it."""

    @property
    def thresholds_text(self) -> str:
        """The thresholds for people: one where all are alike."""
        alike = len(set(self.thresholds)) == 1
        return ", ".join(
            f"{threshold:g}" for threshold in (self.thresholds[:1] if alike else self.thresholds)
        )


def read_trained(
    checkpoint: Path,
    exported: Path,
    *,
    pipeline: Pipeline,
    seed: int,
    confidence: Confidence = "max_probability",
) -> Trained:
    """Read a trained model and its export.

    Args:
        checkpoint: folder with ``config.json`` and ``tokenizer.json``.
        exported: folder with ``model.onnx`` and ``model-int8.onnx``; Q takes the latter.
        pipeline: the pipeline to deploy.
        seed: of its training.
        confidence: what its exits decide by; a graph that was exported with ``max_probability`` is stitched
            anew.

    Raises:
        PipeOpsError: a file is absent or damaged, graph and checkpoint are not of this model, or the graph
            was exported with yet another confidence.
    """
    shape = ModelShape.from_checkpoint(checkpoint)
    config = checkpoint / "config.json"
    made_by, of_seed = ModelShape.pipeline_of(checkpoint), read_config(checkpoint).get("seed", seed)
    for what, found, wanted in (("pipeline", made_by, pipeline.trained), ("seed", of_seed, seed)):
        if found != wanted:
            raise PipeOpsError(f"{config}: is of {what} {found}, not {wanted}; train it again")
    path = graph_path(exported, "model", quantised="Q" in pipeline.inference)
    graph, of_graph = _read_graph(path, confidence)
    if of_graph != shape:
        raise PipeOpsError(f"{path}: is not of the model in {checkpoint}; export it again")
    metadata = metadata_of(graph)
    refuse_other_model(path, metadata, pipeline=made_by, seed=seed)
    return Trained(
        graph=graph,
        shape=shape,
        confidence=metadata.get("pipeops.confidence", "max_probability"),
        labels=_read_labels(checkpoint, shape),
        tokenizer=_read_tokenizer(checkpoint / "tokenizer.json"),
        truncation_side=_truncation_side(checkpoint / "tokenizer_config.json"),
    )


def thresholds_per_exit(
    given: Sequence[float], shape: ModelShape, confidence: Confidence
) -> tuple[float, ...]:
    """Check thresholds and repeat a single one, so that there is one per exit but the last.

    Args:
        given: one, or one per exit but the last. A confidence from 0 (always leaves) to 2 (above 1 never
            does); with ``patience`` a number of exits, from 1.
        shape: the model's.
        confidence: what thresholds are compared with.

    Raises:
        PipeOpsError: a threshold is out of range, or there is another number of them.
    """
    exits = len(shape.exit_layers)
    if not shape.has_exits:
        if given:
            raise PipeOpsError("--threshold: this pipeline has no early exits; leave the option out")
        return ()
    lowest, highest = (1.0, float(exits)) if confidence == "patience" else (0.0, MOST_SURE)
    for threshold in given:
        whole = confidence != "patience" or float(threshold).is_integer()
        if not (math.isfinite(threshold) and lowest <= threshold <= highest and whole):
            allowed = (
                f"a whole number of exits from 1 to {exits}"
                if confidence == "patience"
                else "a value from 0, where every input leaves, to 2; above 1 none does"
            )
            raise PipeOpsError(f"--threshold: {threshold:g} is out of range; give {allowed}")
    if len(given) not in (1, exits - 1):
        raise PipeOpsError(
            f"--threshold: {len(given)} given; give one for all exits, or {exits - 1}, one per exit but the "
            "last"
        )
    return tuple(map(float, given)) * (exits - 1 if len(given) == 1 else 1)


def policy_of(
    trained: Trained,
    pipeline: Pipeline,
    *,
    thresholds: tuple[float, ...],
    max_length: int | None,
    text_columns: tuple[str, ...],
) -> Policy:
    """Say how a model is run.

    Args:
        trained: the model.
        pipeline: its pipeline; with L inputs are not padded.
        thresholds: as :func:`thresholds_per_exit` returns them.
        max_length: longest input in tokens; None: as many as the model has positions for.
        text_columns: what the texts of an input are.

    Raises:
        PipeOpsError: the model has no positions for inputs so long, or they leave no room for a text.
    """
    most = trained.shape.max_length
    special = trained.tokenizer.num_special_tokens_to_add(len(text_columns) > 1)
    least = special + len(text_columns)
    longest = most if max_length is None else max_length
    if not least <= longest <= most:
        raise PipeOpsError(f"--max-length: {longest} is out of range; give a number from {least} to {most}")
    return Policy(
        pipeline=str(pipeline),
        confidence=trained.confidence,
        exit_layers=trained.shape.exit_layers,
        thresholds=thresholds,
        max_length=longest,
        padding="L" not in pipeline.inference,
        text_columns=text_columns,
        batch_tokens=0 if "Q" in pipeline.inference else BATCH_TOKENS,
    )


def refuse_other_content(folder: Path) -> None:
    """Refuse a folder with anything but a deployed model; hidden files and Python's cache do not count.

    Raises:
        PipeOpsError: it holds something else, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise PipeOpsError(f"{folder}: is no folder; name another")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    kept = {name for name in there if name.startswith(".")} | {"__pycache__"}
    # The model is written first, so without it and a policy a README is somebody's own.
    ours = set(FILES) if there & {MODEL, POLICY} else set()
    if strange := sorted(there - kept - ours):
        raise PipeOpsError(
            f"{folder / strange[0]}: is not of a deployed model; delete it, or name another folder"
        )


def deploy(trained: Trained, policy: Policy, folder: Path, *, card: str) -> None:
    """Write a folder with ``FILES``. Cut off, it holds the earlier model, or its script refuses it.

    Args:
        trained: the model. Class names and longest input go into its graph's metadata.
        policy: how it is run.
        folder: where to write; it may hold an earlier deployed model.
        card: text of the README.

    Raises:
        PipeOpsError: the folder holds something else.
    """
    refuse_other_content(folder)
    with sealed_folder(folder, first=MODEL, last=POLICY) as written:
        model = _with_metadata(trained, policy)
        write(model, written / MODEL)
        write(with_weights_in(batch_graph(model), written / MODEL), written / BATCH)
        tokenizer = _prepared(trained, policy).to_str() + "\n"
        (written / TOKENIZER).write_text(tokenizer, encoding="utf-8")
        labels = {str(number): label for number, label in enumerate(trained.labels)}
        (written / LABELS).write_text(json_text(labels))
        shutil.copyfile(Path(__file__).with_name(SCRIPT), written / SCRIPT)
        (written / CARD).write_text(card, encoding="utf-8")
        (written / POLICY).write_text(json_text(asdict(policy)))


def _with_metadata(trained: Trained, policy: Policy) -> onnx.ModelProto:
    """The graph with class names and longest input, whatever it said of them before."""
    added = {"pipeops.labels": json.dumps(trained.labels), "pipeops.max_length": str(policy.max_length)}
    return with_metadata(trained.graph, added)


def _prepared(trained: Trained, policy: Policy) -> Tokenizer:
    """The tokenizer that truncates and pads as the policy says, whatever the checkpoint's did."""
    tokenizer = Tokenizer.from_str(trained.tokenizer.to_str())
    tokenizer.enable_truncation(
        policy.max_length, stride=0, strategy="longest_first", direction=trained.truncation_side
    )
    tokenizer.no_padding()
    if policy.padding:
        pad = trained.shape.pad_token_id
        tokenizer.enable_padding(
            direction="right",
            length=policy.max_length,
            pad_id=pad,
            pad_token=tokenizer.id_to_token(pad) or "",
        )
    return tokenizer


def _read_graph(path: Path, confidence: Confidence) -> tuple[onnx.ModelProto, ModelShape]:
    again = "export the model again"
    with reading(path, absent=again, wrong="not a readable model", again=again):
        graph = graphs.load(path)
        if not graph.functions:
            raise PipeOpsError(f"{path}: a graph without functions; {again}, without --inline")
        graph = with_confidence(graph, confidence, path=path)
        return graph, ModelShape.from_config(json.loads(metadata_of(graph)["pipeops.shape"]))


def _read_labels(folder: Path, shape: ModelShape) -> tuple[str, ...]:
    names: Any = read_config(folder).get("id2label")
    wanted = [str(number) for number in range(shape.num_labels)]
    if not isinstance(names, dict) or sorted(names) != sorted(wanted):
        raise PipeOpsError(
            f"{folder / 'config.json'}: id2label does not name {shape.num_labels} classes; train it again"
        )
    return tuple(str(names[number]) for number in wanted)


def _read_tokenizer(path: Path) -> Tokenizer:
    again = "train the model again"
    refuse_unsafe_tokenizer(path)
    with reading(path, absent=again, wrong="not a tokenizer", again=again):
        return Tokenizer.from_buffer(path.read_bytes())


def _truncation_side(path: Path) -> str:
    """What transformers does where nothing is said: cut on the right."""
    if not path.exists():
        return "right"
    with reading(path, again="train the model again"):
        return str(json.loads(path.read_text(encoding="utf-8")).get("truncation_side", "right"))
