"""Pricing and checking as the command line asks for them: files in, files out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.data.tokenised import TokenisedSplit, load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.files import expanded, replaced
from pipeops.locks import alone
from pipeops.measuring.answers import read_answers
from pipeops.measuring.check import check
from pipeops.measuring.policies import thresholds_of
from pipeops.measuring.price import price
from pipeops.measuring.price_list import price_list, read_lengths
from pipeops.measuring.prices import read_prices
from pipeops.measuring.replay import Replay
from pipeops.models.architectures import known_architecture
from pipeops.models.shape import ModelShape
from pipeops.models.vocabulary import Vocabulary, has_vocabulary, read_vocabulary
from pipeops.operators.declaration import NoSettings, Setup
from pipeops.operators.registry import OPERATORS, shape_after
from pipeops.pipeline import Pipeline, orderings, trained_pipelines
from pipeops.settings import ALTERNATE, ModelSection


@dataclass(frozen=True)
class PriceInputs:
    """Whose models are priced, and on which inputs."""

    backbone: str
    """Folder of the encoder, or ``tiny``."""
    lengths: Path
    """As for ``price_list.read_lengths``; of a tokenised split classes and padded length are taken too."""
    student: Path | None
    """Folder of D's student; None: every second layer of the backbone."""
    max_length: int | None
    """Padded length; None: the split's, or the longest."""
    sections: Mapping[str, Any]
    """``prices``, ``exits`` and the operators' own sections."""

    @cached_property
    def split(self) -> TokenisedSplit | None:
        """The inputs, where they are a tokenised split."""
        return load_tokenised(self.lengths) if self.lengths.suffix == ".parquet" else None

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """What V left, where the backbone is one that it made."""
        folder = expanded(self.backbone)
        return read_vocabulary(folder) if has_vocabulary(folder) else None

    @cached_property
    def original(self) -> ModelShape:
        """O's shape."""
        encoder, split = known_architecture(self.backbone, "--backbone"), self.split
        shape = encoder.shape(
            num_labels=len(split.labels) if split else 2,
            sep_token_id=split.sep_token_id if split else 0,
            pooling=self.sections["exits"].pooling,
        )
        return self.vocabulary.undone(shape) if self.vocabulary else shape

    def refuse(self, pipeline: Pipeline) -> None:
        """Refuse a pipeline that starts from another backbone.

        Raises:
            PipeOpsError: it has V and the backbone is not one that V made, or the other way round.
        """
        if pipeline.transformed and self.vocabulary is None:
            raise PipeOpsError(
                f"--backbone: {self.backbone} has its whole vocabulary, but {pipeline} has V; name the one "
                "that `pipeops vocabulary` wrote"
            )
        if self.vocabulary and not pipeline.transformed:
            raise PipeOpsError(
                f"--backbone: {self.backbone} has a pruned vocabulary, but {pipeline} has no V; name the one "
                "that V pruned"
            )

    def shape(self, pipeline: Pipeline) -> ModelShape:
        """The shape of a trained pipeline's model."""
        return shape_after(pipeline.trained, self.original, self._setup)

    @property
    def pipelines(self) -> list[str]:
        """The trained pipelines that start from this backbone, after O."""
        known = [text for text in trained_pipelines() if Pipeline(text).transformed == bool(self.vocabulary)]
        return list(dict.fromkeys(["O", *known]))

    def padded(self, lengths: NDArray[np.int64]) -> int:
        """Tokens that inputs are padded to."""
        split = self.split
        return self.max_length or (split.max_length if split else int(lengths.max()))

    def _setup(self, letter: str) -> Setup:
        model = ModelSection(backbone=self.backbone, student=str(self.student or ALTERNATE))
        section = OPERATORS[letter].section
        settings = self.sections[section] if section else NoSettings()
        setup = Setup(model=model, settings=settings, vocabulary=self.vocabulary)
        if setup.student and setup.student.hidden_size != setup.backbone.hidden_size:
            raise PipeOpsError(
                f"--student: {self.student} has hidden size {setup.student.hidden_size}, the backbone "
                f"{setup.backbone.hidden_size}; the losses on hidden states need the same width"
            )
        return setup


def price_set(operators: str, inputs: PriceInputs, output: Path) -> None:
    """Price the models of one set of operators, ``O`` for none; see ``price.price``.

    Raises:
        PipeOpsError: there is no such pipeline or file, or the machine is too busy.
    """
    found = orderings(operators)
    if not found:
        raise PipeOpsError(f"--operators: '{operators}' has no valid ordering; remove one of its letters")
    inputs.refuse(found[0])
    lengths = read_lengths(inputs.lengths)
    with alone(output.with_name(f".{output.name}.lock"), "prices the same"):
        price(
            inputs.shape(found[0]),
            inputs.original,
            output,
            lengths=lengths,
            max_length=inputs.padded(lengths),
            settings=inputs.sections["prices"],
            operators=operators,
        )


def price_pipelines(inputs: PriceInputs, output: Path | None) -> pd.DataFrame:
    """Price every pipeline; return the table of ``price_list``, and write it where ``output`` names a CSV.

    Raises:
        PipeOpsError: there is no such file, or the machine is too busy.
    """
    lengths = read_lengths(inputs.lengths)
    table = price_list(
        inputs.shape,
        lengths=lengths,
        max_length=inputs.padded(lengths),
        settings=inputs.sections["prices"],
        pipelines=inputs.pipelines,
    )
    if output is not None:
        with replaced(output) as path:
            table.to_csv(path, index=False)
    return table


def check_pipeline(
    model: Path,
    original: Path,
    data: Path,
    answers: Path,
    prices: Path,
    output: Path,
    *,
    sections: Mapping[str, Any],
) -> None:
    """Check one pipeline of one seed; see ``check.check``.

    Args:
        model: folder of its exported graphs.
        original: folder of O's.
        data: tokenised validation examples.
        answers: what its exits answer.
        prices: what leaving at them costs.
        output: the CSV.
        sections: ``check``, ``prices``, ``measuring`` and ``exits``.
    """
    measuring, confidence = sections["measuring"], sections["exits"].confidence
    replay = Replay(read_answers(answers), read_prices(prices, this_cpu=not measuring.allow_other_cpu))
    thresholds = thresholds_of(
        confidence,
        exits=len(replay.shape.exit_layers),
        thresholds=measuring.thresholds,
        patiences=measuring.patiences,
    )
    check(
        replay,
        model,
        original,
        data,
        output,
        confidence=confidence,
        thresholds=thresholds,
        settings=sections["check"],
        machine=sections["prices"],
    )
