"""Scoring a model on new rows: a deployed folder as it is, an exported one with what lies beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeops.errors import PipeOpsError
from pipeops.measuring.score import Scored
from pipeops.measuring.score import score as score_deployed
from pipeops.models.shape import ModelShape
from pipeops.onnx.deploy import MOST_SURE, deploy, policy_of, read_trained, thresholds_per_exit
from pipeops.onnx.paths import graph_path
from pipeops.pipeline import Pipeline
from pipeops.settings import Confidence
from pipeops.study.config import read_study
from pipeops.study.deploying import Choice


def score(
    folder: Path,
    data: Path,
    *,
    text: Sequence[str],
    label: str,
    int8: bool,
    threads: int,
    configfiles: Sequence[Path] = (),
) -> Scored:
    """Score a folder on labelled rows; see :func:`pipeops.measuring.score.score`.

    Args:
        folder: what ``pipeops deploy`` wrote, or a folder of the results with exported graphs.
        data: CSV, TSV, JSON lines or Parquet.
        text: its columns of texts; empty: those of the model's task.
        label: its column of labels.
        int8: whether the int8 graph of an exported folder is taken.
        threads: CPU threads.
        configfiles: of the study of an exported folder, whose exits decide by its confidence.

    Raises:
        PipeOpsError: see there; or the folder is neither, or what an exported model needs is not beside it.
    """
    if not folder.is_dir():
        raise PipeOpsError(f"{folder}: is no folder; name one that `pipeops deploy` wrote")
    if not graph_path(folder, "profile", quantised=False).exists():
        if int8:
            raise PipeOpsError("--int8: is for exported folders; a deployed one has one graph; leave it out")
        if configfiles:
            raise PipeOpsError(
                "--configfile: is for exported folders; a deployed one knows its confidence; leave it out"
            )
        return score_deployed(folder, data, text=text, label=label, threads=threads)
    confidence = read_study(configfiles).exits.confidence
    with _deployed(folder, text, int8=int8, confidence=confidence) as temporary:
        return score_deployed(temporary, data, text=text, label=label, threads=threads)


@contextmanager
def _deployed(exported: Path, text: Sequence[str], *, int8: bool, confidence: Confidence) -> Iterator[Path]:
    """Deploy an exported model to a temporary folder; it never leaves early."""
    place = exported.resolve()
    kind, dataset, trained_pipeline, seed = ("", "", "", *place.parts)[-4:]
    checkpoint = place.parents[3] / "models" / dataset / trained_pipeline / seed if kind == "onnx" else place
    number = seed.removeprefix("seed")
    if kind != "onnx" or not number.isdecimal() or not checkpoint.is_dir():
        raise PipeOpsError(
            f"{exported}: is an exported model, whose tokenizer is in no folder of results beside it; deploy "
            "it with `pipeops deploy`, and score what that writes"
        )
    pipeline = Pipeline(f"{ModelShape.pipeline_of(checkpoint)}L{'Q' * int8}")
    choice = Choice(results=place.parents[3], dataset=dataset, pipeline=pipeline, seed=int(number))
    trained = read_trained(checkpoint, exported, pipeline=pipeline, seed=int(number), confidence=confidence)
    exits = len(trained.shape.exit_layers)
    never = [exits if trained.confidence == "patience" else MOST_SURE] if exits > 1 else []
    policy = policy_of(
        trained,
        pipeline,
        thresholds=thresholds_per_exit(never, trained.shape, trained.confidence),
        max_length=choice.longest,
        text_columns=tuple(text) or choice.task.columns,
    )
    with TemporaryDirectory() as folder:
        deploy(trained, policy, Path(folder), card="")
        yield Path(folder)
