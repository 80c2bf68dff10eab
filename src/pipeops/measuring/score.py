"""How good a deployed model is on new rows: a report of its classes, and its curve of accuracy and time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeops.data.rows import Rows, label_ids, read_rows
from pipeops.errors import PipeOpsError
from pipeops.hardware import cpu
from pipeops.measuring.classes import METRICS, by_class, confusion, counts_of
from pipeops.measuring.policies import scores, thresholds_of
from pipeops.models.foreign import refuse_unsafe_tokenizer
from pipeops.onnx.classify import MOSTLY, Classifier, Refused
from pipeops.onnx.export import write
from pipeops.onnx.graphs import load, straightened
from pipeops.onnx.runtime import EarlyExitModel, Profiler, chosen_exits, force_exit
from pipeops.progress import tracked
from pipeops.reading import reading
from pipeops.settings import Confidence, MeasuringSection
from pipeops.text import markdown_table

TIMED = 100
"""Inputs whose time is measured, at most."""
WARM_UP = 3
"""Of them, run before and not counted."""
_SAMPLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What every exit of a deployed model answers on labelled rows, and how long leaving there takes."""

    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    label_ids: NDArray[np.int64]
    """The right classes, shape (rows,)."""
    matched_by: str
    """Whether labels were matched with classes by ``name`` or by ``id``."""
    logits: NDArray[np.float32]
    """Shape (rows, exits, labels)."""
    truncated: int
    """Rows that were too long and cut."""
    unknown: int = 0
    """Rows of which the model knows hardly any words."""
    max_length: int
    """Longest input in tokens."""
    confidence: Confidence
    """What thresholds are compared with."""
    exit_layers: tuple[int, ...]
    thresholds: tuple[float, ...]
    """The deployed ones, one per exit but the last."""
    timed: NDArray[np.int64]
    """Rows whose time was measured, shape (timed,)."""
    time_ms: NDArray[np.float64]
    """Of leaving at each exit, tokenising not included, shape (timed, exits)."""
    threads: int
    """That computed."""

    def taken(self, thresholds: Sequence[float]) -> NDArray[np.int64]:
        """Index of the exit at which each row leaves, with one threshold per exit but the last."""
        return chosen_exits(scores(self.logits, self.confidence), thresholds)

    def matrix(self, thresholds: Sequence[float]) -> NDArray[np.int64]:
        """The confusion matrix; see :func:`pipeops.measuring.classes.confusion`."""
        taken = self.taken(thresholds)
        answers = self.logits[np.arange(len(taken)), taken].argmax(axis=-1)
        return confusion(self.label_ids, answers, len(self.labels))

    def point(self, thresholds: Sequence[float]) -> dict[str, float]:
        """Every metric, mean exit layer and median milliseconds, with these thresholds."""
        taken, counts = self.taken(thresholds), counts_of(self.matrix(thresholds))
        times = self.time_ms[np.arange(len(self.timed)), taken[self.timed]]
        return {name: float(metric.of(counts)) for name, metric in METRICS.items()} | {
            "mean_exit_layer": float(np.array(self.exit_layers)[taken].mean()),
            "time_ms": float(np.median(times)),
        }

    def curve(self) -> list[dict[str, float]]:
        """A point per threshold, used at every exit; none for a model without early exits."""
        exits = len(self.exit_layers)
        if exits == 1:
            return []
        used = thresholds_of(
            self.confidence, exits=exits, thresholds=MeasuringSection().thresholds, patiences=None
        )
        return [{"threshold": threshold} | self.point((threshold,) * (exits - 1)) for threshold in used]

    def report(self) -> dict[str, Any]:
        """All of it as JSON has it; numbers that are undefined are null."""
        matrix = self.matrix(self.thresholds)
        classes = [
            {"label": name} | of._asdict()
            for name, of in zip(self.labels, by_class(counts_of(matrix)), strict=True)
        ]
        return _without_nan(
            {
                "rows": len(self.label_ids),
                "labels_matched_by": self.matched_by,
                "truncated": self.truncated,
                "unknown": self.unknown,
                "max_length": self.max_length,
                "thresholds": list(self.thresholds),
                "confidence": self.confidence,
                **self.point(self.thresholds),
                "classes": classes,
                "confusion": matrix.tolist(),
                "curve": self.curve(),
                "timed_rows": len(self.timed),
                "threads": self.threads,
                "cpu": cpu()["model"],
            }
        )


def score(
    folder: Path, data: Path, *, text: Sequence[str] = (), label: str = "label", threads: int = 1
) -> Scored:
    """Run a deployed model on labelled rows.

    Every row is run through all layers once, and the thresholds are replayed from what its exits answer. Then
    some rows are run as the deployed model runs them, once per exit, and timed.

    Args:
        folder: what ``pipeops deploy`` wrote.
        data: CSV, TSV, JSON lines or Parquet.
        text: its columns of texts; empty: those of the task that the model was trained on.
        label: its column of labels.
        threads: CPU threads.

    Raises:
        PipeOpsError: a file is absent or damaged, a column is missing, a label is not one of the model's, or
            a text cannot be classified.
    """
    graph = folder / "model.onnx"
    refuse_unsafe_tokenizer(folder / "tokenizer.json")
    with reading(graph, absent="deploy the model again", again="deploy the model again"):
        model = load(graph)
    classifier = _classifier(folder, threads)
    columns = text or classifier.columns
    if len(columns) != len(classifier.columns):
        raise PipeOpsError(
            f"--text: {len(columns)} given, the model takes {len(classifier.columns)} "
            f"({', '.join(classifier.columns)}); give as many"
        )
    rows = read_rows(data, text=columns, label=label)
    names = tuple(classifier.labels)
    ids, matched_by = label_ids(rows, names)
    encoded = [_encoded(classifier, rows, index) for index in range(len(rows.texts))]
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "profile.onnx")
        with reading(graph, again="deploy the model again"):
            write(straightened(model), path)
        profiler = Profiler.load(path, threads=threads)
    logits = [
        # One by one and unpadded: the activations of an int8 batch share one scale.
        profiler.run(tokens[mask == 1][None], mask[mask == 1][None]).logits[0]
        for tokens, mask, _ in tracked(encoded, "score", total=len(encoded))
    ]
    early = EarlyExitModel(classifier.session, profiler.shape)
    timed = np.random.default_rng(_SAMPLE_SEED).permutation(len(encoded))[:TIMED]
    return Scored(
        labels=names,
        label_ids=ids,
        matched_by=matched_by,
        logits=np.stack(logits),
        truncated=sum(cut for _, _, cut in encoded),
        unknown=sum(classifier.unknown(tokens, mask) >= MOSTLY for tokens, mask, _ in encoded),
        max_length=classifier.max_length,
        confidence=early.confidence,
        exit_layers=profiler.shape.exit_layers,
        thresholds=tuple(map(float, classifier.thresholds)),
        timed=timed,
        time_ms=_times(early, [encoded[index][:2] for index in timed]),
        threads=threads,
    )


def score_text(scored: Scored) -> str:
    """The report for people: totals, a row per class, the confusion matrix, and the curve."""
    report = scored.report()
    parts = [
        f"accuracy {_percent(report['accuracy'])}, macro-F1 {_percent(report['macro_f1'])}, MCC "
        f"{report['mcc']:.3f} on {report['rows']:,} rows (labels matched by {scored.matched_by})"
    ]
    if scored.truncated:
        parts.append(f"{scored.truncated:,} rows were cut at {scored.max_length} tokens.")
    if scored.unknown:
        parts.append(f"The model knows hardly any of the words of {scored.unknown:,} rows.")
    classes = [
        [
            of["label"],
            *(_percent(of[key]) for key in ("precision", "recall", "f1")),
            f"{of['support']:,}",
        ]
        for of in report["classes"]
    ]
    parts.append(markdown_table(["class", "precision", "recall", "F1", "support"], classes))
    counts = [
        [name, *(f"{count:,}" for count in row)]
        for name, row in zip(scored.labels, report["confusion"], strict=True)
    ]
    parts.append(markdown_table(["label \\ answer", *scored.labels], counts))
    deployed = {"threshold": "as deployed"} | scored.point(scored.thresholds)
    points = [
        [
            f"{point['threshold']:g}" if isinstance(point["threshold"], float) else point["threshold"],
            *(_percent(point[key]) for key in ("accuracy", "macro_f1")),
            f"{point['mean_exit_layer']:.2f} of {scored.exit_layers[-1]}",
            f"{point['time_ms']:.3g}",
        ]
        for point in [deployed, *report["curve"]]
    ]
    header = [f"threshold ({scored.confidence})", "accuracy", "macro-F1", "mean exit layer", "ms an input"]
    parts.append(markdown_table(header, points))
    parts.append(
        f"Times are medians of {len(scored.timed)} inputs, measured just now on this CPU ({report['cpu']}), "
        f"threads: {scored.threads}, tokenising not included."
    )
    return "\n\n".join(parts)


def _classifier(folder: Path, threads: int) -> Classifier:
    try:
        return Classifier(folder, threads)
    except Refused as error:
        raise PipeOpsError(str(error)) from None


def _encoded(
    classifier: Classifier, rows: Rows, index: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    try:
        return classifier.prepare(*rows.texts[index])
    except Refused as error:
        raise PipeOpsError(f"{rows.path}, row {index + 1}: {error}") from None


def _times(
    model: EarlyExitModel, inputs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> NDArray[np.float64]:
    """Milliseconds of leaving at each exit, shape (inputs, exits)."""
    layers = model.shape.exit_layers
    thresholds = [force_exit(layer, layers) for layer in layers]
    warm_up = [(index, exit_) for index in range(min(WARM_UP, len(inputs))) for exit_ in range(len(layers))]
    runs = [(index, exit_) for index in range(len(inputs)) for exit_ in range(len(layers))]
    times = np.zeros((len(inputs), len(layers)))
    for index, exit_ in tracked([*warm_up, *runs], "time", total=len(warm_up) + len(runs)):
        ids, mask = inputs[index]
        start = perf_counter()
        model.run(ids[None], mask[None], thresholds[exit_])
        times[index, exit_] = 1000 * (perf_counter() - start)
    return times


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _without_nan(value: Any) -> Any:
    """The same with None for every NaN, which is no JSON."""
    if isinstance(value, dict):
        return {key: _without_nan(of) for key, of in value.items()}
    if isinstance(value, list):
        return [_without_nan(of) for of in value]
    return None if isinstance(value, float) and np.isnan(value) else value
