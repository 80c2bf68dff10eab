import json

import pytest
import yaml
from helpers import ROOT, unsealed, write_backbone

from pipeops.errors import PipeOpsError
from pipeops.pipeline import Pipeline
from pipeops.settings import kept_count
from pipeops.study.config import Config, load_config

SHIPPED = [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]


SEEING = {"pooling": "mean", "standardise": True, "exit_loss": "mean"}


def overlaid(path):
    """A shipped configuration as Snakemake reads it: over the default one."""

    def merge(base, changes):
        return {
            key: merge(base[key], value)
            if isinstance(value, dict) and isinstance(base.get(key), dict)
            else value
            for key, value in (base | changes).items()
        }

    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    return merge(default, yaml.safe_load(path.read_text()))


def test_config_yaml_spells_out_every_default():
    written = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert load_config(written) == Config()
    assert set(written) == set(Config.model_fields)
    for name, section in written.items():
        fields = getattr(Config.model_fields[name].annotation, "model_fields", None)
        if fields is not None:
            assert set(section) == set(fields), name


def test_schema_file_is_the_models():
    written = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    assert written == Config.model_json_schema(), "run `make schema`"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    study = load_config(overlaid(path))
    assert study.trainings


def test_the_papers_settings():
    study = load_config(overlaid(ROOT / "configs/paper.yaml"))
    for operator in "ODPE":
        settings = study.training.of(operator)
        assert (settings.epochs, settings.batch_size, settings.learning_rate) == (10, 8, 1e-5)
    assert kept_count(study.pruning.keep_heads, 12, what="pruning.keep_heads") == 8
    assert kept_count(study.pruning.keep_ffn, 3072, what="pruning.keep_ffn") == 1536
    assert study.seeds == [1, 2, 3, 4, 5]
    assert study.datasets == ["mrpc", "sst2", "qnli", "qqp"]


def test_thirteen_trainings_and_seven_orderings():
    study = Config()
    assert len(study.trainings) == 13
    assert [str(p) for p in study.orderings] == ["DE", "ED", "EP", "PE", "DEP", "DPE", "EDP"]


def test_estimated_sets_follow_the_operator_sets_unless_named():
    assert Config().estimated_sets == ["DE", "PE", "DPE"]
    assert Config(operator_sets=["DE"]).estimated_sets == ["DE"]
    assert Config(cumulativeness=["EP"]).estimated_sets == ["PE"]
    assert Config(cumulativeness=[]).estimated_sets == []
    assert [str(p) for p in Config(cumulativeness=["DE"]).estimated_from] == ["DE", "ED", "O", "D", "E"]


def test_estimates_with_d_need_the_time_of_leaving_at_once():
    thresholds = {"thresholds": [0.6, 0.9, 1.01]}
    with pytest.raises(
        PipeOpsError, match=r"measuring.thresholds: begins with 0.6, but .* DE, DPE .*; add 0,"
    ):
        load_config({"measuring": thresholds})
    assert load_config({"measuring": thresholds, "cumulativeness": ["PE"]})
    by_patience = {"exits": {"confidence": "patience"}, "measuring": {"patiences": [2, 3]}}
    with pytest.raises(PipeOpsError, match=r"measuring.patiences: begins with 2, .*; add 1, or set"):
        load_config(by_patience)


def test_a_patience_that_a_model_cannot_have_is_refused_before_anything_runs():
    by_patience = {"exits": {"confidence": "patience"}, "measuring": {"patiences": [1, 4]}}
    with pytest.raises(PipeOpsError, match=r"patiences: 4, but DE has 3 exits; give numbers up to 3"):
        load_config(by_patience)
    assert load_config(by_patience | {"measuring": {"patiences": [1, 3]}})
    assert load_config({"measuring": {"patiences": [4]}}), "unused where thresholds are confidences"


def test_steps_count_from_pretrained_weights():
    study = Config(datasets=["mrpc"], model={"backbone": "roberta-base", "pooling": "mean"})
    of_d, of_e = (study.training.of(letter) for letter in "DE")
    steps = study.steps_of_orderings["mrpc"]
    once = -(-3668 // of_d.batch_size) * of_d.epochs
    assert steps["ED"] == once
    assert steps["DE"] == once + -(-3668 // of_e.batch_size) * of_e.epochs


def test_everything_that_a_table_needs_is_measured():
    study = Config()
    measured = [str(pipeline) for pipeline in study.measured]
    assert measured == ["DE", "ED", "EP", "PE", "DEP", "DPE", "EDP", "O", "D", "P", "E", "DP", "C"]


SLENDER = {"compression": 2}
"""What the tests' backbone, smaller than `tiny`, can reach."""

BAD = {
    "unknown key, nearest named": ({"sedes": [1]}, "unknown key 'sedes' (did you mean 'seeds'?)"),
    "unknown nested key": (
        {"training": {"learning_rat": 1}},
        "unknown key 'training.learning_rat' (did you mean 'learning_rate'?)",
    ),
    "unknown operator setting": (
        {"training": {"operators": {"D": {"epoch": 1}}}},
        "training: operators.D: unknown key 'epoch' (did you mean 'epochs'?)",
    ),
    "untrained operator": ({"training": {"operators": {"Q": {}}}}, "'Q' is not a trained operator"),
    "wrong type": ({"training": {"epochs": "many"}}, "training.epochs: input should be a valid number"),
    "empty seeds": ({"seeds": []}, "seeds: is empty; list at least one"),
    "duplicate seeds": ({"seeds": [1, 2, 1]}, "seeds: '1' is listed 2 times; list it once"),
    "negative seed": ({"seeds": [-1]}, "seeds.0: input should be greater than or equal to 0"),
    "unknown dataset": ({"datasets": ["sts2"]}, "datasets: unknown dataset 'sts2' (did you mean 'sst2'?)"),
    "regression": ({"datasets": ["stsb"]}, "datasets: 'stsb' is a regression task"),
    "unknown operator": ({"operator_sets": ["DX"]}, "operator_sets: operator set 'DX': unknown letter 'X'"),
    "twice": ({"operator_sets": ["EE"]}, "operator_sets: operator set 'EE'"),
    "one order only": ({"operator_sets": ["PD"]}, "operator_sets: operator set 'PD'"),
    "inference": ({"operator_sets": ["QD"]}, "operator_sets: operator set 'QD'"),
    "Q in pipelines": (
        {"pipelines": ["DQ"]},
        "pipelines: 'DQ': every pipeline is measured with and without L",
    ),
    "C with others": (
        {"pipelines": ["CD"]},
        "pipelines: pipeline 'CD': D cannot come after C: C replaces D, P and E",
    ),
    "C after others": (
        {"pipelines": ["PC"]},
        "pipelines: pipeline 'PC': C cannot come after P: C replaces D, P and E",
    ),
    "C in a set": ({"operator_sets": ["CD"]}, "operator_sets: operator set 'CD' has no valid order"),
    "C alone": ({"operator_sets": ["C"]}, "operator_sets: operator set 'C' has only one order"),
    "C compared, not measured": (
        {"pipelines": ["O", "D", "P", "E", "DP"], "joint": ["C", "DPE"]},
        "joint: 'C' is not measured; add it: pipelines: [O, D, P, E, DP, C]",
    ),
    "nothing compared": ({"joint": []}, "joint: compares C with others, and does not name C; add it"),
    "compared without C": ({"joint": ["O"]}, "joint: compares C with others, and does not name C; add it"),
    "no full depth": (
        {"measuring": {"thresholds": [0, 0.6]}},
        "measuring.thresholds: must end above 1, where no early exit is taken; add 1.01",
    ),
    "growing out of bounds": (
        {"costeff": {"learning_rate_growth": float("inf")}},
        "costeff.learning_rate_growth: input should be a finite number",
    ),
    "too many heads": (
        {"costeff": {"heads": 5, "ffn": 64, "rank": 32}},
        "costeff.heads: 5 is more than the backbone's 4; lower it",
    ),
    "rank above the hidden size": (
        {"costeff": {"heads": 1, "ffn": 64, "rank": 129}},
        "costeff.rank: 129 is more than the backbone's 85; lower it",
    ),
    "no neurons": (
        {"costeff": {"heads": 1, "ffn": 0, "rank": 32}},
        "costeff.ffn: input should be greater than or equal to 1",
    ),
    "part of a width": ({"costeff": {"heads": 1}}, "costeff: ffn, rank not given; name heads, ffn and rank"),
    "two widths": (
        {"costeff": {"compression": 2, "heads": 1, "ffn": 9, "rank": 8}},
        "costeff: give either compression or heads, ffn and rank; set compression: null",
    ),
    "unreachable compression": (
        {"costeff": {"compression": 40}},
        "costeff.compression: 40 is out of reach: one head and one FFN neuron per layer are 1/",
    ),
    "growing": ({"costeff": {"compression": 0.5}}, "costeff.compression: input should be greater than 1"),
    "no pipeline": ({"table2": ["PD"]}, "table2: pipeline 'PD': D cannot come after P"),
    "table 2 of what is not measured": (
        {"pipelines": ["O", "D", "P", "E"]},
        "table2: 'DP' is not measured; add it: pipelines: [O, D, P, E, DP]",
    ),
    "estimate without a part": (
        {"pipelines": ["O", "D", "DP"], "table2": ["O"], "operator_sets": ["PE"]},
        "cumulativeness: 'PE' is estimated from O, P, E, of which P, E is not measured; "
        "add it: pipelines: [O, D, DP, P, E]",
    ),
    "estimate without a target": (
        {"operator_sets": ["DE"], "cumulativeness": ["DE", "EP"]},
        "cumulativeness: no ordering of 'PE' is measured; add it: operator_sets: [DE, PE]",
    ),
    "estimate without E": (
        {"cumulativeness": ["DP"]},
        "cumulativeness: operator set 'DP' has only one order",
    ),
    "no head": ({"pruning": {"keep_heads": 0}}, "pruning.keep_heads: input should be greater than 0"),
    "too many": ({"pruning": {"keep_ffn": 1.5}}, "pruning.keep_ffn: input should be less than or equal to 1"),
    "rounds to none": ({"pruning": {"keep_heads": 0.1}}, "pruning.keep_heads: 0.1 of 4 rounds to none"),
    "too long": (
        {"model": {"max_length": 65}},
        "model.max_length: 65 is more than the backbone's 64 positions",
    ),
    "no folder": ({"glue": "/no/such/glue"}, "glue: '/no/such/glue' is not a folder"),
    "no backbone": ({"model": {"backbone": "./absent"}}, "model.backbone: './absent' is not a folder"),
    "tiny on GLUE": ({"datasets": ["sst2"]}, "model.backbone: 'tiny' knows only the generated tasks' words"),
    "thresholds": ({"measuring": {"thresholds": [0.9, 0.5]}}, "measuring.thresholds: must be ascending"),
    "a folder that is not plain": (
        {"pathvars": {"results": "results/x/"}},
        "pathvars.results: 'results/x/': targets would not be found under it; write results/x",
    ),
    "no files": (
        {"tasks": {"own": {"files": {"train": "a.csv", "validation": []}, "text": "t", "label": "l"}}},
        "tasks.own.files.validation: is empty",
    ),
    "patiences": ({"measuring": {"patiences": [1, 3, 2]}}, "measuring.patiences: must be ascending, each"),
    "no thresholds": (
        {"measuring": {"thresholds": []}},
        "measuring.thresholds: is empty",
    ),
    "inference only": (
        {"operator_sets": ["DEQ"]},
        "operator_sets: operator set 'DEQ': Q changes inference only",
    ),
    "substring": ({"training": {"operators": {"DP": {}}}}, "'DP' is not a trained operator"),
    "pathvars": ({"pathvars": {"resultz": "x"}}, "unknown key 'pathvars.resultz' (did you mean 'results'?)"),
    "huge seed": ({"seeds": [2**32]}, "seeds.0: input should be less than or equal to 4294967295"),
    "braces": ({"model": {"backbone": "a{b}"}}, "model.backbone: 'a{b}': braces are not allowed"),
    "home": (
        {"model": {"backbone": "~nobody-here/x"}},
        "model.backbone: '~nobody-here/x': there is no home of that user; write the path out",
    ),
    "braces of rows": (
        {"tasks": {"own": {"files": {"train": "a{b}.csv"}, "text": "t", "label": "l", "held_out": 0.2}}},
        "'a{b}.csv': braces are not allowed in a path; rename it",
    ),
    "tiny student": ({"model": {"student": "tiny"}}, "model.student: 'tiny' is a backbone only"),
    "V behind": ({"pipelines": ["O", "DV"]}, "V cannot come after D: it changes what trainings start from"),
    "no text": (
        {"vocabulary": {"texts": ["./no.txt"]}},
        "vocabulary.texts: './no.txt' is no file; name text",
    ),
    "no size": ({"vocabulary": {"size": 0}}, "vocabulary.size: input should be greater than or equal to 1"),
    "not a section": ({"training": 3}, "training: is a section of keys and values"),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD.keys())
def test_bad_values_are_named_in_one_line(values, message):
    with pytest.raises(PipeOpsError) as error:
        load_config(values)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_every_mistake_has_its_line():
    with pytest.raises(PipeOpsError) as error:
        load_config({"sedes": [1], "seeds": [], "datasets": ["x"]})
    assert len(str(error.value).splitlines()) == 3


def test_a_tokenizer_that_v_cannot_remap_is_refused_where_v_is_used(tmp_path):
    folder = unsealed(write_backbone(tmp_path / "base", family="bert"))
    values = {
        "datasets": ["sst2"],
        "model": {"backbone": str(folder), "max_length": 24},
        "costeff": SLENDER,
        "pipelines": ["O", "V"],
        "table2": ["O", "V"],
        "cumulativeness": [],
    }
    assert load_config(values).transformed
    path = folder / "tokenizer.json"
    whole = path.read_text()
    path.write_text(whole.replace('"WordLevel"', '"Morphemes"'))
    with pytest.raises(PipeOpsError) as error:
        load_config(values)
    assert str(error.value).startswith(
        f"config: model.backbone: {path}: V cannot remap a tokenizer of kind Morphemes, only BPE, WordPiece"
    )
    assert len(str(error.value).splitlines()) == 1
    assert not load_config(values | {"pipelines": ["O"], "table2": ["O"]}).transformed
    path.write_text("[]")
    with pytest.raises(PipeOpsError, match=r"model.backbone: .*tokenizer.json: not a tokenizer \(of another"):
        load_config(values)


def test_v_trains_nothing():
    values = {"operator_sets": ["VDE"], "training": {"operators": {"E": {"epochs": 2}, "D": {"epochs": 2}}}}
    study = load_config(values)
    assert study.warnings == []
    assert study.steps(Pipeline("VE"), 160) == study.steps(Pipeline("E"), 160)
    assert study.steps(Pipeline("V"), 160) == study.steps(Pipeline("O"), 160)


def test_a_local_backbone_is_looked_at(tmp_path):
    folder = unsealed(write_backbone(tmp_path / "base", family="bert"))
    model = {"backbone": str(folder), "max_length": 24}
    assert load_config(
        {"datasets": ["sst2"], "model": model, "pruning": {"keep_heads": 0.25}, "costeff": SLENDER}
    )
    with pytest.raises(PipeOpsError, match="max_length: 25 is more than the backbone's 24 positions"):
        load_config({"datasets": ["sst2"], "model": model | {"max_length": 25}})
    other = write_backbone(tmp_path / "other", family="roberta")
    with pytest.raises(PipeOpsError, match="student: '.*' is a roberta model, the backbone a bert model"):
        load_config({"datasets": ["sst2"], "model": model | {"student": str(other)}})
    narrow = write_backbone(tmp_path / "student", family="bert", hidden_size=8)
    with pytest.raises(PipeOpsError, match="hidden size 8, the backbone 16"):
        load_config({"datasets": ["sst2"], "model": model | {"student": str(narrow)}})
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(PipeOpsError, match="is a gpt2 model; PipeOps supports the families .*bert.*roberta"):
        load_config({"datasets": ["sst2"], "model": model})


@pytest.mark.parametrize(
    "content", ['{"model_type": "bert"}', "[1]", "\xff", '{"model_type": "roberta", "pad_token_id": null}']
)
def test_a_damaged_backbone_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(PipeOpsError, match=r"config.json: no encoder's configuration") as error:
        load_config({"datasets": ["sst2"], "model": {"backbone": str(tmp_path)}})
    assert len(str(error.value).splitlines()) == 1


def test_a_local_glue_is_looked_at_and_home_is_expanded(tmp_path, monkeypatch):
    backbone = write_backbone(tmp_path / "base", family="bert")
    values = {"datasets": ["sst2"], "model": {"backbone": str(backbone), "max_length": 20}, "glue": "~/glue"}
    values["costeff"] = SLENDER
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "glue/sst2").mkdir(parents=True)
    (tmp_path / "glue/sst2/train-0.parquet").touch()
    with pytest.raises(PipeOpsError, match=r"has no sst2/validation\*; name a complete folder"):
        load_config(values)
    (tmp_path / "glue/sst2/validation-0.parquet").touch()
    assert load_config(values).glue == str(tmp_path / "glue")


def test_null_as_a_text_is_null():
    """What Snakemake's --config makes of it."""
    study = load_config(
        {"joint": "null", "costeff": {"compression": "null", "heads": 1, "ffn": 9, "rank": 8}}
    )
    assert (study.joint, study.costeff.compression) == (None, None)


def test_operator_settings_override_the_shared_ones():
    study = load_config({"training": {"epochs": 2, "operators": {"D": {"epochs": 7}}}})
    assert study.training.of("D").epochs == 7
    assert study.training.of("O").epochs == 2
    assert study.training.of("D").batch_size == study.training.of("O").batch_size


def test_values_from_the_command_line_are_texts():
    values = {"seeds": ["4", "5"], "training": {"epochs": "2"}, "joint": ["O", "C"]}
    study = load_config(values | {"keep_checkpoints": False}, command_line=values)
    assert (study.seeds, study.training.epochs, study.joint) == ([4, 5], 2, ["O", "C"])
    assert not study.keep_checkpoints
    with pytest.raises(
        PipeOpsError, match="seeds.0: input should be a valid integer .got '4'.; write it without"
    ):
        load_config(values)


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("O", {"pooling": "mean"}),
        ("D", {"pooling": "mean"}),
        *((text, SEEING) for text in ("E", "C", "DE", "ED", "EP", "DPE")),
    ],
)
def test_a_training_depends_only_on_what_its_exits_use(pipeline, expected):
    changed = load_config(
        {"model": {"pooling": "mean"}, "exits": {"standardise": True}, "training": {"exit_loss": "mean"}}
    )
    given = changed.exit_training(Pipeline.parse(pipeline))
    assert given.model_dump(exclude_defaults=True) == expected
    plain = load_config({"model": {"pooling": "first"}})
    assert plain.exit_training(Pipeline.parse(pipeline)).model_dump(exclude_defaults=True) == {}
