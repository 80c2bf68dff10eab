"""Each family through the small workflow: trained, exported, evaluated and priced, with and without LQ."""

import numpy as np
import pytest
import torch
from helpers import ANYWHERE, write_backbone, write_examples

from pipeops.data.tokenised import load_tokenised
from pipeops.measuring.evaluate import evaluate
from pipeops.measuring.price import measure_prices
from pipeops.models.architectures import architecture
from pipeops.models.families.registry import FAMILIES
from pipeops.onnx.export import export
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel, Profiler, force_exit
from pipeops.operators.builtin import CostEffSection, PruningSection
from pipeops.operators.declaration import NoSettings, Setup
from pipeops.operators.registry import shape_after
from pipeops.pipeline import Pipeline, closure
from pipeops.settings import ModelSection, PricesSection, TrainingSettings
from pipeops.training.checkpoints import load_model
from pipeops.training.job import Job, train

SETTINGS = TrainingSettings(epochs=1, batch_size=16, learning_rate=5e-3)
OWN = {"P": PruningSection(keep_heads=0.5, keep_ffn=0.25), "C": CostEffSection(heads=2, ffn=6, rank=6)}
PIPELINES = ("O", "D", "P", "E", "DPE", "C")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_the_workflow(family, tmp_path):
    base = write_backbone(tmp_path / "base", family=family)
    found = architecture(str(base))
    data = write_examples(tmp_path / "train.parquet", rows=32, pad_token_id=found.pad_token_id)
    shapes = train_all(tmp_path, base, data)
    split = load_tokenised(data)
    original = found.shape(num_labels=2, sep_token_id=split.sep_token_id)

    def setup(letter):
        return Setup(model=ModelSection(backbone=str(base)), settings=OWN.get(letter, NoSettings()))

    for name in PIPELINES:
        pipeline, onnx = Pipeline.parse(name), tmp_path / "onnx" / name
        assert shapes[name] == shape_after(pipeline.trained, original, setup)
        export(tmp_path / name, onnx)
        compare(load_model(tmp_path / name).eval(), onnx, split)
        evaluate(onnx, data, tmp_path / f"{name}.parquet", dataset="sst2", pipeline=name, seed=1)
    lengths = np.array([len(ids) for ids in split.input_ids])
    table, _ = measure_prices(
        shapes["DPE"],
        original,
        lengths=lengths,
        max_length=split.max_length,
        settings=PricesSection(**ANYWHERE),
        operators="DPE",
    )
    assert set(table["inference"].fillna("")) == {"", "L", "Q", "LQ"}
    assert (table["time_ms"] > 0).all()


def train_all(folder, base, data):
    """Train the pipelines and those that they come from; return their shapes."""
    shapes = {}
    for pipeline in closure([Pipeline.parse(name) for name in PIPELINES]):
        letter, parent = pipeline.operator, pipeline.parent
        job = Job(
            operator=letter,
            parent=folder / str(parent) if parent else None,
            backbone=base,
            data=data,
            seed=1,
            settings=SETTINGS,
            own_settings=OWN.get(letter, NoSettings()),
        )
        train(job, folder / str(pipeline), state_root=folder / "state")
        shapes[str(pipeline)] = load_model(folder / str(pipeline)).shape
    return shapes


def compare(model, onnx, split):
    """Exported as PyTorch; padded as unpadded, fp32 and int8; with early exits as straight through."""
    for quantised in (False, True):
        profiler = Profiler.load(graph_path(onnx, "profile", quantised=quantised), threads=1)
        early = EarlyExitModel.load(graph_path(onnx, "model", quantised=quantised), threads=1)
        for index in range(4):
            ids = split.input_ids[index][None]
            short, padded = profiler.run(ids, np.ones_like(ids)), profiler.run(*split.padded(index))
            np.testing.assert_allclose(padded.logits, short.logits, atol=1e-5, rtol=0)
            for exit_logits, layer in zip(short.logits[0], model.shape.exit_layers, strict=True):
                answer = early.run(*split.padded(index), force_exit(layer, model.shape.exit_layers))
                assert answer.exit_layer == layer
                np.testing.assert_allclose(answer.logits[0], exit_logits, atol=1e-5, rtol=0)
            if not quantised:
                with torch.no_grad():
                    ours = torch.stack(model(torch.from_numpy(ids)).exit_logits, dim=1).numpy()
                np.testing.assert_allclose(short.logits, ours, atol=1e-4, rtol=0)
