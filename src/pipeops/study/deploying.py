"""Deploying one model of a study: thresholds from its answers, and a model card of what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeops import __version__
from pipeops.data.own import ABOUT, read_about
from pipeops.data.tasks import TASKS, Task
from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.measuring.answers import Answers, read_answers
from pipeops.measuring.classes import ACCURACY, Metric
from pipeops.measuring.policies import scores
from pipeops.measuring.prices import Prices, read_prices
from pipeops.measuring.replay import Replay
from pipeops.onnx.classify import BATCH_TOKENS
from pipeops.onnx.deploy import (
    FILES,
    Policy,
    Trained,
    deploy,
    policy_of,
    read_trained,
    refuse_other_content,
    thresholds_per_exit,
)
from pipeops.onnx.runtime import chosen_exits
from pipeops.operators.registry import OPERATORS
from pipeops.pipeline import Pipeline
from pipeops.provenance import versions
from pipeops.settings import Confidence, MeasuringSection
from pipeops.study.jobs import prepared
from pipeops.text import markdown_table, nearest

ROWS = "rows"
"""Folder of the results with the rows of own tasks."""
NEEDED = ("onnxruntime", "tokenizers", "numpy")
"""Packages of a deployed model."""
_ROUNDING = 1e-9  # percentage points


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which model of a study is deployed, and how."""

    results: Path
    """The study's results."""
    dataset: str
    pipeline: Pipeline
    seed: int
    thresholds: Sequence[float] = ()
    """One, or one per exit but the last; empty: the fastest that ``within`` allows."""
    within: float = 0.5
    """Percentage points of the metric that leaving early may cost on the validation split."""
    metric: Metric = ACCURACY
    """What says how good answers are: the task's."""
    confidence: Confidence = "max_probability"
    """What thresholds are compared with: the study's ``exits.confidence``."""
    max_length: int | None = None
    """Longest input in tokens; None: the study's (``longest``)."""
    base_model: str | None = None
    """Hub id of the pretrained encoder, for the model card."""

    @property
    def task(self) -> Task:
        """The dataset's.

        Raises:
            PipeOpsError: it is not known.
        """
        if self.dataset in TASKS:
            return TASKS[self.dataset]
        rows = self.results / ROWS
        if (rows / self.dataset / ABOUT).is_file():
            return read_about(rows / self.dataset / ABOUT).task(self.dataset)
        known = [*TASKS, *sorted(path.parent.name for path in rows.glob(f"*/{ABOUT}"))]
        raise PipeOpsError(
            f"--dataset: unknown dataset '{self.dataset}'{nearest(self.dataset, known)}; known are "
            f"{', '.join(known)}"
        )

    def of_seed(self, kind: str) -> Path:
        """The folder of this model within a folder of the results."""
        return self.results / kind / self.dataset / self.pipeline.trained / f"seed{self.seed}"

    @cached_property
    def answers(self) -> Answers | None:
        """What its exits answer on the validation split; None where they were not asked."""
        path = self.of_seed("answers").with_suffix(".parquet")
        if not path.exists():
            return None
        return read_answers(path, dataset=self.dataset, pipeline=self.pipeline.trained, seed=self.seed)

    @cached_property
    def prices(self) -> Prices | None:
        """What leaving at its exits costs; None where that was not measured."""
        path = self.results / "prices" / self.dataset / f"{self.pipeline.operators}.csv"
        return read_prices(path, this_cpu=False) if path.exists() else None

    @cached_property
    def replay(self) -> Replay | None:
        """Both together; None where either is."""
        if self.answers is None or self.prices is None:
            return None
        return Replay(self.answers, self.prices, self.metric)

    @property
    def longest(self) -> int | None:
        """Longest input in tokens, as measured or trained; None where nothing says it (positions count)."""
        for measured in (self.answers, self.prices):
            if measured is not None:
                return measured.max_length
        rows = self.results / prepared(self.pipeline, self.dataset) / f"data/{self.dataset}/train.parquet"
        return load_tokenised(rows).max_length if rows.exists() else None


def deploy_choice(choice: Choice, output: Path) -> Policy:
    """Write a folder that classifies texts without torch or PipeOps; see :mod:`pipeops.onnx.deploy`.

    Returns:
        How the deployed model is run.

    Raises:
        PipeOpsError: a file of the model is absent or damaged, its graph was exported with yet another
            confidence, the thresholds or the longest input are out of range, no threshold is given and there
            are no answers to choose one from, or the folder holds something else.
    """
    refuse_other_content(output)
    task, answers = choice.task, choice.answers
    models, exported = choice.of_seed("models"), choice.of_seed("onnx")
    trained = read_trained(
        models, exported, pipeline=choice.pipeline, seed=choice.seed, confidence=choice.confidence
    )
    if answers is not None and (answers.shape, answers.labels) != (trained.shape, trained.labels):
        raise PipeOpsError(f"{answers.path}: answers of another model; delete it and evaluate again")
    given = choice.thresholds
    if not given and trained.shape.has_exits:
        if answers is None:
            raise PipeOpsError(
                "--threshold: is needed, since there are no answers to choose it from "
                f"({choice.of_seed('answers').with_suffix('.parquet')})"
            )
        inference = choice.pipeline.inference
        given = [fastest(answers, inference, trained.confidence, within=choice.within, metric=choice.metric)]
    policy = policy_of(
        trained,
        choice.pipeline,
        thresholds=thresholds_per_exit(given, trained.shape, trained.confidence),
        max_length=choice.longest if choice.max_length is None else choice.max_length,
        text_columns=task.columns,
    )
    deploy(trained, policy, output, card=_card(choice, trained, policy))
    return policy


def fastest(
    answers: Answers, inference: str, confidence: Confidence, *, within: float, metric: Metric = ACCURACY
) -> float:
    """The lowest threshold, one for all exits, at which leaving early costs little.

    Args:
        answers: on the validation split.
        inference: letters of the inference operators.
        confidence: what thresholds are compared with.
        within: how much worse than never leaving early it may be, percentage points.
        metric: what says how good answers are.

    Returns:
        One of the default thresholds of ``measuring``, or with ``patience`` a number of exits.
    """
    exits = len(answers.shape.exit_layers)
    candidates = list(range(1, exits + 1)) if confidence == "patience" else MeasuringSection().thresholds
    never = _quality(answers, inference, np.full(len(answers.lengths), exits - 1), metric)
    for threshold in candidates[:-1]:
        taken = exits_taken(answers, inference, confidence, (threshold,) * (exits - 1))
        lost = 100 * (never - _quality(answers, inference, taken, metric))
        if lost <= within + _ROUNDING:
            return float(threshold)
    return float(candidates[-1])


def exits_taken(
    answers: Answers, inference: str, confidence: Confidence, thresholds: Sequence[float]
) -> NDArray[np.int64]:
    """Index of the exit at which each example leaves, with one threshold per exit but the last."""
    return chosen_exits(scores(answers.of(inference), confidence), thresholds)


def _quality(answers: Answers, inference: str, exits: NDArray[np.int64], metric: Metric) -> float:
    said = answers.of(inference).argmax(axis=-1)[np.arange(len(exits)), exits]
    return float(metric.of_answers(answers.label_ids, said))


def _card(choice: Choice, trained: Trained, policy: Policy) -> str:
    """The README: a model card, with YAML in front as model hubs read it."""
    measured = _measured(choice, policy)
    names = " or ".join(f"`{label}`" for label in trained.labels)
    texts = "two texts" if len(policy.text_columns) > 1 else "a text"
    about = [
        ["task", f"{choice.dataset}: {', '.join(policy.text_columns)}"],
        ["pipeline", f"{policy.pipeline}: {_operators(choice.pipeline)}"],
        ["seed", str(choice.seed)],
        ["encoder", f"{trained.shape.num_layers} layers, {trained.shape.parameters:,} weights"],
        ["longest input", f"{policy.max_length} tokens; longer ones are cut"],
        ["padding", f"to {policy.max_length} tokens" if policy.padding else "none"],
    ]
    if policy.thresholds:
        about.append(["exits", f"after layers {', '.join(map(str, policy.exit_layers))}"])
        about.append(["threshold", f"{policy.thresholds_text} ({policy.confidence})"])
    parts = [
        _front_matter(choice, measured),
        f"# {choice.dataset}, {policy.pipeline}",
        f"The model answers {names} for {texts}. PipeOps {__version__} made it.",
        markdown_table(["", ""], about),
    ]
    if measured:
        parts += ["## Measured", *_measured_text(choice, policy, measured)]
    parts += [
        "## Use",
        f"```\npip install {' '.join(f'{name}=={v}' for name, v in versions(*NEEDED).items())}\n"
        f"python classify.py {_example(policy)}\npython classify.py --help\n```",
        "Each line of the output is a label, a tab, and the probability that the model gives the label.\n"
        "A file or standard input has one input a line"
        + (", both texts separated by a tab." if len(policy.text_columns) > 1 else ".")
        + (
            ""
            if policy.batch_tokens
            else f" With `--batch-tokens {BATCH_TOKENS}` inputs of like length are run "
            "together. That is faster, but an answer then depends a little on the others."
        ),
        "The same without the script:",
        f"```python\n{_snippet(policy)}\n```",
        markdown_table(["File", "What it holds"], _FILES),
    ]
    return "\n\n".join(parts) + "\n"


_FILES = [
    [f"`{name}`", what]
    for name, what in zip(
        FILES,
        (
            "weights and early exits; class names and longest input in its metadata",
            "the same for many inputs at once; its weights are those of model.onnx, which it needs beside it",
            "of the `tokenizers` library, with truncation and padding set",
            "class names by id",
            "thresholds, longest input, padding, pipeline, tokens that are run together",
            "the command line above",
            "this text",
            "digests of the files above; the script checks them, and so does `sha256sum --check`",
        ),
        strict=True,
    )
]


def _snippet(policy: Policy) -> str:
    pair = len(policy.text_columns) > 1
    texts = '"a text", "another text"' if pair else '"a text"'
    options, exact = "", []
    if "Q" in policy.pipeline:
        options = "options, "
        exact = [
            "options = onnxruntime.SessionOptions()",
            'options.add_session_config_entry("session.x64quantprecision", "1")  # for CPUs without VNNI',
        ]
    lines = [
        "import json",
        "import numpy, onnxruntime, tokenizers",
        "",
        'tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")',
        *exact,
        f'session = onnxruntime.InferenceSession("model.onnx", {options}providers=["CPUExecutionProvider"])',
        f"tokens = tokenizer.encode({texts})",
        'inputs = {"input_ids": numpy.array([tokens.ids], dtype="int64")}',
        'inputs["attention_mask"] = numpy.array([tokens.attention_mask], dtype="int64")',
    ]
    if policy.thresholds:
        lines += [
            'thresholds = json.load(open("policy.json"))["thresholds"]',
            'inputs["thresholds"] = numpy.array(thresholds, dtype="float32")',
        ]
    lines += [
        "logits, exit_layer = session.run(None, inputs)",
        'print(json.load(open("labels.json"))[str(logits[0].argmax())], exit_layer[0])',
    ]
    return "\n".join(lines)


def _example(policy: Policy) -> str:
    return '"a text" "another text"' if len(policy.text_columns) > 1 else '"a text"'


def _operators(pipeline: Pipeline) -> str:
    return ", ".join(OPERATORS[letter].name for letter in pipeline.text)


def _measured(choice: Choice, policy: Policy) -> dict[str, Any]:
    """The metric, mean exit layer, and time where it was priced; empty without answers."""
    answers, inference = choice.answers, choice.pipeline.inference
    if answers is None or policy.max_length != answers.max_length:
        return {}
    taken = exits_taken(answers, inference, policy.confidence, policy.thresholds)
    never = np.full_like(taken, len(policy.exit_layers) - 1)
    found = {
        "quality": _quality(answers, inference, taken, choice.metric),
        "never": _quality(answers, inference, never, choice.metric),
        "layer": float(np.array(policy.exit_layers)[taken].mean()),
    }
    if replay := choice.replay:
        relative, _ = replay.variants[inference].costs(taken)
        found |= {"relative": relative, "ms": relative * replay.prices.original_ms}
    return found


def _measured_text(choice: Choice, policy: Policy, measured: dict[str, Any]) -> list[str]:
    answers, replay, metric = choice.answers, choice.replay, choice.metric
    assert answers is not None
    on = f"{'of' if metric is ACCURACY else 'on'} {len(answers.lengths):,} validation examples"
    rows = [[metric.title, f"{measured['quality']:.1%} {on}"]]
    if policy.thresholds:
        rows.append([f"{metric.title} without leaving early", f"{measured['never']:.1%}"])
        rows.append(["mean exit layer", f"{measured['layer']:.2f} of {policy.exit_layers[-1]}"])
    if replay:
        record = replay.prices.record
        threads = record["parameters"].get("settings", {}).get("threads", 1)
        rows += [
            ["time per input", f"{measured['ms']:.3f} ms, tokenising not included"],
            ["", f"{measured['relative']:.1%} of the original model's, padded to {policy.max_length} tokens"],
            ["measured on", f"{record['cpu']['model']}, threads: {threads}"],
            ["packages", _packages(record["packages"])],
        ]
        if "Q" in choice.pipeline.inference:
            rows.append(["int8 kernels", str(record["int8_kernels"])])
    else:
        record = answers.record["provenance"]
        rows += [["measured on", record["cpu"]["model"]], ["packages", _packages(record["packages"])]]
    notes = [markdown_table(["", ""], rows)]
    if policy.thresholds and not choice.thresholds:
        notes.append(
            f"The threshold is the lowest that costs at most {choice.within:g} points of {metric.title} on "
            f"these examples.\nSo the {metric.title} on them is slightly optimistic."
        )
    return notes


def _packages(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in NEEDED if name in found)


def _front_matter(choice: Choice, measured: dict[str, Any]) -> str:
    content: dict[str, Any] = {
        "library_name": "onnx",
        "pipeline_tag": "text-classification",
        "tags": ["onnxruntime", "pipeops"] + (["early-exit"] if choice.pipeline.has_exits else []),
    }
    if choice.base_model:
        content["base_model"] = choice.base_model
    if measured:
        task = choice.task
        glue = not (task.generated or task.own)
        about = {"type": "nyu-mll/glue", "config": choice.dataset} if glue else {"type": choice.dataset}
        dataset = {"name": choice.dataset, **about, "split": "validation"}
        metric: dict[str, Any] = {"type": choice.metric.hub, "value": round(measured["quality"], 4)}
        if choice.metric is not ACCURACY:
            metric["name"] = choice.metric.title
        result = {
            "task": {"type": "text-classification"},
            "dataset": dataset,
            "metrics": [metric],
        }
        name = f"{choice.dataset}-{choice.pipeline}"
        content |= {"metrics": [choice.metric.hub], "model-index": [{"name": name, "results": [result]}]}
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"
