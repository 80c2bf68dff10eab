"""The one rule that trains: a node of the DAG is an operator applied to its parent's checkpoint."""


def training_threads(wildcards):
    return study.training.of(last_operator(wildcards)).threads


def operator_revision(wildcards):
    return revisions.OPERATOR[last_operator(wildcards)]


def training_options(wildcards, input):
    """What this operator depends on, and nothing else: other settings must retrain nothing."""
    operator = last_operator(wildcards)
    options = ["--settings", study.training.of(operator).model_dump_json()]
    if operator == "P":
        options += ["--pruning", study.pruning.model_dump_json()]
    if input.importance_data:
        options += ["--importance-data", str(input.importance_data)]
    if input.parent:
        options += ["--parent", folder_of(input.parent)]
    if input.student:
        options += ["--student", folder_of(input.student)]
    return options


rule train:
    input:
        data="<results>/data/{dataset}/train.parquet",
        importance_data=importance_data,
        backbone=multiext("<results>/backbones/base/", *BACKBONE),
        parent=parent_checkpoint,
        student=student_backbone,
    output:
        multiext("<results>/models/{dataset}/{pipeline}/seed{seed}/", *CHECKPOINT),
    log:
        "<logs>/models/{dataset}/{pipeline}/seed{seed}.log",
    params:
        operator=last_operator,
        options=training_options,
        backbone=input_folder("backbone"),
        folder=subpath(output[0], parent=True),
        revision=operator_revision,
    # Trainings go before measurements, which need the machine to themselves.
    priority: 10
    threads: training_threads
    resources:
        mem_mb=4000,
        runtime=240,
    shell:
        "pipeops train {params.operator:q} --data {input.data:q} --backbone {params.backbone:q}"
        " --output {params.folder:q} --seed {wildcards.seed} {params.options:q} > {log:q} 2>&1"
