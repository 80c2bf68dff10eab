"""Backbones and data: fetched, checked or generated once, shared by every job."""


rule backbone:
    output:
        multiext("<results>/backbones/base/", *BACKBONE),
    log:
        "<logs>/backbones/base.log",
    benchmark:
        "<logs>/backbones/base.tsv"
    threads: study.pretraining.threads
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        source=study.model.backbone,
        settings=study.pretraining_json,
        folder=subpath(output[0], parent=True),
        revision=revisions.BACKBONE,
    shell:
        "pipeops backbone {params.source:q} --output {params.folder:q} --settings {params.settings:q} > {log:q} 2>&1"


rule student:
    input:
        teacher=together("<results>/backbones/base/", USED_BACKBONE),
    output:
        multiext("<results>/backbones/student/", *BACKBONE),
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
    shell:
        "pipeops backbone {params.source:q} --teacher {params.teacher:q} --output {params.folder:q} > {log:q} 2>&1"


rule tokenise:
    input:
        backbone=together("<results>/backbones/base/", USED_BACKBONE),
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
        options=tokenise_options,
        backbone=input_folder("backbone"),
        revision=revisions.TOKENISE,
    shell:
        "pipeops tokenise {wildcards.dataset:q} {wildcards.split:q} --backbone {params.backbone:q} --output {output:q}"
        " {params.options:q} > {log:q} 2>&1"
