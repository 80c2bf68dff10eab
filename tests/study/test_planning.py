"""Plans against what Snakemake plans and what models weigh."""

import re

import pytest
from helpers import ROOT
from typer.testing import CliRunner

from pipeops.cli import app
from pipeops.errors import PipeOpsError
from pipeops.hardware import cpu, device_name
from pipeops.pipeline import Pipeline
from pipeops.study.config import Config, read_study
from pipeops.study.planning import Training, plan, shape_of, training_flops, wall_seconds


def test_trainings_of_the_default_study_and_what_sharing_saves():
    planned = plan(Config())
    assert len(planned.trainings) == 13 * 6
    # One by one: 7 orders of 3 or 4 trainings, O, D, P, E, C of up to two, and DP.
    alone = 4 * 3 + 3 * 4 + 1 + 4 * 2 + 3
    assert planned.trainings_alone == 6 * alone
    assert planned.jobs["train"] == 13 * 6
    assert planned.jobs["export"] == planned.jobs["evaluate"] == 13 * 6
    # O, D, P, E, DE, DP, PE, DPE and C.
    assert planned.jobs["price"] == 9


@pytest.mark.parametrize(
    ("pipeline", "layers", "heads", "ffn", "exits", "rank"),
    [
        ("O", 6, 4, 512, 1, 0),
        ("D", 3, 4, 512, 1, 0),
        ("EDP", 3, 2, 256, 3, 0),
        ("PE", 6, 2, 256, 6, 0),
        ("C", 6, 1, 54, 6, 21),
    ],
)
def test_shapes_are_those_that_training_makes(pipeline, layers, heads, ffn, exits, rank):
    shape = shape_of(Config(), Pipeline(pipeline))
    assert shape.heads_per_layer == (heads,) * layers
    assert shape.ffn_per_layer == (ffn,) * layers
    assert (len(shape.exit_layers), shape.embedding_rank) == (exits, rank)


def test_v_costs_no_training_and_is_counted_with_all_tokens():
    study = Config(pipelines=["O", "V", "VP"], operator_sets=["VDE"], table2=["O"])
    assert shape_of(study, Pipeline("VP")) == shape_of(study, Pipeline("P"))
    assert training_flops(study, Pipeline("V"), "generated-sentiment") == 0
    jobs = plan(study).jobs
    assert (jobs["vocabulary"], jobs["tokenise_pruned"], jobs["tokenise"]) == (1, 2, 2)
    assert not {"vocabulary", "tokenise_pruned"} & plan(Config()).jobs.keys()


@pytest.mark.parametrize("pipeline", ["O", "ED", "PE", "C"])
def test_every_shape_pools_as_the_study_says(pipeline):
    assert shape_of(Config(model={"pooling": "mean"}), Pipeline(pipeline)).pooling == "mean"


def test_operations_by_hand():
    study = Config(data={"train_examples": 100}, training={"epochs": 2, "operators": {}})
    forward = {name: shape_of(study, Pipeline(name)).flops(12)[-1] for name in ("O", "D", "P", "DP")}
    flops = {name: training_flops(study, Pipeline(name), "generated-sentiment") for name in forward}
    assert flops["O"] == 200 * 3 * forward["O"]
    assert flops["D"] == 200 * (3 * forward["D"] + forward["O"])
    assert flops["P"] == 200 * (3 * forward["P"] + forward["O"]) + 1000 * 3 * forward["O"]
    assert flops["DP"] == 200 * (3 * forward["DP"] + forward["D"]) + 1000 * 3 * forward["D"]


def test_wall_clock_of_a_chain_and_of_many():
    def training(text, seed, flops):
        return Training(dataset="sst2", pipeline=Pipeline(text), seed=seed, flops=flops)

    trainings = [
        training(text, seed, flops)
        for seed in (1, 2)
        for text, flops in (("O", 4), ("D", 2), ("E", 6), ("DE", 3))
    ]
    assert wall_seconds(trainings, flops_per_second=1, slots=1) == 30
    assert wall_seconds(trainings, flops_per_second=2, slots=1) == 15
    # O, then E (6) beside D and DE (5).
    assert wall_seconds(trainings, flops_per_second=1, slots=100) == 10
    assert wall_seconds(trainings, flops_per_second=1, slots=2) == 15


def test_the_papers_study_from_the_command_line():
    arguments = ["plan", "--configfile", str(ROOT / "configs/paper.yaml"), "--examples-per-second", "200"]
    result = CliRunner().invoke(app, [*arguments, "--gpus", "8"])
    assert result.exit_code == 0, result.output
    assert "240 trainings; 680 if pipelines did not share prefixes." in result.output
    assert "hours of wall clock on 8 GPU(s)" in result.output
    assert "GPU hours" in result.output
    assert "(given)" in result.output


def test_a_plan_with_v_says_that_it_counts_all_tokens(tmp_path):
    said = {}
    for name, pipelines in (("with", "[O, D, E, V]"), ("without", "[O, D, E]")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"pipelines: {pipelines}\noperator_sets: [DE]\ntable2: [O]\n")
        arguments = ["plan", "--configfile", str(path), "--examples-per-second", "200"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        said[name] = result.output
    note = "Files after V are counted with all tokens"
    assert note in said["with"]
    assert note not in said["without"]


def test_a_rate_is_measured_where_none_is_given(tmp_path):
    result = CliRunner().invoke(app, ["plan"])
    assert result.exit_code == 0, result.output
    device = "GPU" if device_name() != "cpu" else "CPU"
    for said in (
        rf"^\| Operator \| Trainings \| {device} hours \|$",
        rf"^Training: \S+ {device} hours, \S+ hours of wall clock on 1 {device}\(s\) with",
    ):
        assert re.search(said, result.output, re.MULTILINE)
    if device == "CPU":
        assert f"(measured on {cpu()['model']} with 1 thread, batch 16, " in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"# gr\xfc\xdfe", "no YAML"),
        ("- a", "holds no keys and values"),
        ("a: [", "no YAML"),
        ("sedes: [1]", "unknown key 'sedes'"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PipeOpsError, match=message):
        read_study([path])
    with pytest.raises(PipeOpsError, match="not found"):
        read_study([tmp_path / "absent.yaml"])


def test_an_infinite_rate_is_refused():
    result = CliRunner().invoke(app, ["plan", "--examples-per-second", "inf"])
    assert result.exit_code == 2
    assert "Invalid value for '--examples-per-second'" in result.output


def test_an_unknown_hub_model_is_named():
    with pytest.raises(
        PipeOpsError, match=r"model.backbone: the architecture of 'owner/x' is not known here"
    ):
        plan(Config(model={"backbone": "owner/x"}, datasets=["sst2"]))
