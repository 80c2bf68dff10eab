"""What was run, and with what: the configuration with all defaults, and what measured the results."""

from pathlib import Path

import pandas as pd
import yaml

from pipeops.analysis.runs import read_details
from pipeops.analysis.verdicts import sentences
from pipeops.errors import errors_in_one_line
from pipeops.files import replaced
from pipeops.integrity import verify
from pipeops.provenance import common_provenance
from pipeops.text import html_page

with errors_in_one_line(Path(snakemake.log[0])):
    records = [record for path in snakemake.input.details for record in read_details(Path(path))]
    verify(Path(snakemake.input.verdicts), again="delete it and run again")
    verdicts = [f"- {one}" for one in sentences(pd.read_csv(snakemake.input.verdicts))]
    sections = {"Configuration": snakemake.params.config, "Provenance": common_provenance(records)}
    blocks = [
        f"## {name}\n\n```yaml\n{yaml.safe_dump(content, sort_keys=False, width=100)}```"
        for name, content in sections.items()
    ]
    with replaced(Path(snakemake.output.html)) as path:
        path.write_text(html_page("\n\n".join(["# The study", "\n".join(verdicts), *blocks])))
