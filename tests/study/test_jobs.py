"""Command lines of jobs, without Snakemake: what they hold, and that they hold nothing else."""

import json

import pytest
from helpers import write_backbone

from pipeops.pipeline import Pipeline
from pipeops.study import jobs
from pipeops.study.config import load_config


def document(study, pipeline):
    """The letter and the settings document of a training's command line."""
    letter, option, text = jobs.train(study, Pipeline(pipeline))
    assert option == "--settings"
    return letter, json.loads(text)


def test_tokenising_holds_only_what_it_depends_on():
    study = load_config({"data": {"train_examples": 12, "validation_examples": None}})
    generated = jobs.tokenise(study, "generated-sentiment", "train")
    assert generated == ["generated-sentiment", "train", "--max-length", "40", "--examples", "12"]
    assert "--glue" in jobs.tokenise(study, "sst2", "train")
    assert "--examples" not in jobs.tokenise(study, "sst2", "validation")


def test_the_vocabulary_is_that_of_the_training_rows_that_are_used():
    study = load_config({"data": {"train_examples": 12}, "vocabulary": {"size": 100}})
    options = jobs.vocabulary(study, "generated-sentiment")
    assert options == ["generated-sentiment", "--examples", "12", "--settings", '{"size":100}']
    assert options[1:3] == jobs.tokenise(study, "generated-sentiment", "train")[-2:]
    assert jobs.pruned_backbones(study) == ["base"]


def test_a_backbone_has_settings_only_where_it_is_pretrained_here():
    assert jobs.backbone(load_config({}))[:2] == ["tiny", "--settings"]
    assert jobs.backbone(load_config({"model": {"backbone": "owner/x"}, "datasets": ["sst2"]})) == ["owner/x"]


@pytest.mark.parametrize(
    ("pipeline", "letter", "sections"),
    [
        ("O", "O", ["training", "exits"]),
        ("D", "D", ["training", "exits"]),
        ("DEP", "P", ["training", "exits", "pruning"]),
        ("C", "C", ["training", "exits", "costeff"]),
    ],
)
def test_a_training_has_one_document_with_its_own_section(pipeline, letter, sections):
    found, settings = document(load_config({}), pipeline)
    assert (found, list(settings)) == (letter, sections)


def test_settings_of_one_operator_change_no_other_command_line():
    plain, changed = load_config({}), load_config({"pruning": {"keep_heads": 0.25}})
    for pipeline in ("O", "D", "E", "C"):
        assert document(plain, pipeline) == document(changed, pipeline)
    assert document(plain, "P") != document(changed, "P")
    rate = load_config({"training": {"operators": {"D": {"learning_rate": 1e-3}}}})
    assert document(rate, "D")[1]["training"]["learning_rate"] == 1e-3
    assert document(rate, "E")[1]["training"]["learning_rate"] == 5e-4


def test_extra_inputs_are_those_that_the_operator_declares(tmp_path):
    plain = load_config({})
    assert jobs.train_inputs(plain, Pipeline("O"), "sst2", "1") == {}
    assert jobs.train_inputs(plain, Pipeline("D"), "sst2", "1") == {"parent": "models/sst2/O/seed1/"}
    write_backbone(tmp_path / "student")
    write_backbone(tmp_path / "base")
    study = load_config(
        {
            "model": {
                "backbone": str(tmp_path / "base"),
                "student": str(tmp_path / "student"),
                "max_length": 12,
            },
            "datasets": ["sst2"],
            "pruning": {"importance_split": "validation"},
            "costeff": {"heads": 2, "ffn": 6, "rank": 8},
        }
    )
    assert jobs.train_inputs(study, Pipeline("D"), "sst2", "1") == {
        "student": "backbones/student/",
        "parent": "models/sst2/O/seed1/",
    }
    assert jobs.train_inputs(study, Pipeline("VD"), "sst2", "1") == {
        "student": "vocabulary/sst2/backbones/student/",
        "parent": "models/sst2/V/seed1/",
    }
    assert jobs.train_inputs(study, Pipeline("V"), "sst2", "1") == {"parent": "models/sst2/O/seed1/"}
    assert jobs.pruned_backbones(study) == ["base", "student"]
    assert jobs.train_inputs(study, Pipeline("VEP"), "sst2", "7") == {
        "importance_data": "vocabulary/sst2/data/sst2/validation.parquet",
        "parent": "models/sst2/VE/seed7/",
    }
    assert jobs.train_inputs(study, Pipeline("EP"), "sst2", "7") == {
        "importance_data": "data/sst2/validation.parquet",
        "parent": "models/sst2/E/seed7/",
    }


def test_options_of_extra_inputs():
    options = jobs.train_input_options({"student": "s", "importance_data": "v.parquet", "parent": "p"})
    assert options == ["--input", "student=s", "--input", "importance_data=v.parquet", "--parent", "p"]


def test_hardware_is_no_setting():
    plain, elsewhere = load_config({}), load_config({"training": {"device": "gpu", "compiled": True}})
    assert document(plain, "E") == document(elsewhere, "E")
    assert "--no-compiled" in jobs.train_hardware_options(plain, Pipeline("E"))
    *options, _, saving = jobs.train_hardware_options(elsewhere, Pipeline("E"))
    assert options == ["--device", "gpu", "--gpu-slots", "1", "--processes", "1", "--compiled"]
    assert json.loads(saving) == {"training": {"checkpoint_every": 0.5}}


def test_how_often_is_saved_and_how_long_is_waited_decide_nothing():
    given = {"training": {"operators": {"E": {"checkpoint_every": 0.1}}}, "prices": {"wait": 9}}
    plain, other = load_config({}), load_config(given)
    assert document(plain, "E") == document(other, "E")
    assert jobs.price(plain, "PE") == jobs.price(other, "PE")
    assert jobs.check(plain) == jobs.check(other)
    assert json.loads(jobs.train_hardware_options(other, Pipeline("E"))[-1]) == {
        "training": {"checkpoint_every": 0.1}
    }
    assert json.loads(jobs.waiting_options(other)[-1]) == {"prices": {"wait": 9}}


def test_settings_of_one_pipeline_change_its_training_alone():
    plain, longer = load_config({}), load_config({"training": {"pipelines": {"ED": {"epochs": 6}}}})
    assert document(longer, "ED")[1]["training"]["epochs"] == 6
    for pipeline in ("D", "DE", "EDP"):
        assert document(plain, pipeline) == document(longer, pipeline)


def test_what_checks_depend_on():
    study = load_config({"exits": {"confidence": "patience"}, "check": {"examples": 7}})
    option, text = jobs.check(study)
    assert option == "--settings"
    assert json.loads(text)["check"]["examples"] == 7
    assert json.loads(text)["exits"] == {"confidence": "patience"}
    assert jobs.rule_of_exits(study)["confidence"] == "patience"


@pytest.mark.parametrize(
    ("operators", "sections"),
    [("O", []), ("DE", []), ("PE", ["pruning"]), ("C", ["costeff"])],
)
def test_a_price_depends_on_the_shape_of_its_set_alone(operators, sections):
    _, given, _, text = jobs.price(load_config({}), operators)
    assert given == operators
    assert list(json.loads(text)) == ["prices", "exits", *sections]


def test_a_price_of_d_needs_the_student_where_there_is_one():
    named = load_config({"model": {"backbone": "owner/x", "student": "owner/y"}, "datasets": ["sst2"]})
    assert jobs.priced_with_student(named, "DE")
    assert not jobs.priced_with_student(named, "PE")
    assert not jobs.priced_with_student(load_config({}), "DE")
