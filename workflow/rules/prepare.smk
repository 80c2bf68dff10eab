"""Backbones and data: fetched, checked or generated once, shared by every job."""


rule backbone:
    output:
        multiext(f"<results>/{jobs.BASE}", *jobs.BACKBONE),
    log:
        "<logs>/backbones/base.log",
    benchmark:
        "<logs>/backbones/base.tsv"
    threads: study.pretraining.threads
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        arguments=jobs.backbone(study),
        folder=subpath(output[0], parent=True),
        revision=revisions.BACKBONE,
    message:
        f"prepare the backbone {study.model.backbone}"
    shell:
        "pipeops backbone {params.arguments:q} --output {params.folder:q} > {log:q} 2>&1"


rule student:
    input:
        teacher=together(f"<results>/{jobs.BASE}", USED_BACKBONE),
    output:
        multiext(f"<results>/{STUDENT}", *jobs.BACKBONE),
    log:
        "<logs>/backbones/student.log",
    benchmark:
        "<logs>/backbones/student.tsv"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        source=study.model.student,
        teacher=input_folder("teacher"),
        folder=subpath(output[0], parent=True),
        revision=revisions.BACKBONE,
    message:
        f"fetch the student {study.model.student}"
    shell:
        "pipeops backbone {params.source:q} --teacher {params.teacher:q} --output {params.folder:q} > {log:q} 2>&1"


rule tokenise:
    input:
        backbone=together(f"<results>/{jobs.BASE}", USED_BACKBONE),
    output:
        "<results>/data/{dataset}/{split}.parquet",
    log:
        "<logs>/data/{dataset}/{split}.log",
    benchmark:
        "<logs>/data/{dataset}/{split}.tsv"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        arguments=lambda wildcards: jobs.tokenise(
            study, wildcards.dataset, wildcards.split
        ),
        backbone=input_folder("backbone"),
        revision=lambda wildcards: (
            revisions.TOKENISE + TASKS[wildcards.dataset].revision
        ),
    message:
        "tokenise {wildcards.dataset}, {wildcards.split} split"
    shell:
        "pipeops tokenise {params.arguments:q} --backbone {params.backbone:q} --output {output:q} > {log:q} 2>&1"
