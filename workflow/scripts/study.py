"""What was run, with what: the configuration with all defaults, packages and machine."""

from pathlib import Path

import yaml

from pipeops.errors import errors_in_one_line
from pipeops.files import replaced
from pipeops.provenance import provenance
from pipeops.reporting import html_page

with errors_in_one_line(Path(snakemake.log[0])):
    about = {name: value for name, value in provenance().items() if name != "parameters"}
    sections = {"Configuration": snakemake.params.config, "Provenance": about}
    blocks = [
        f"## {name}\n\n```yaml\n{yaml.safe_dump(content, sort_keys=False, width=100)}```"
        for name, content in sections.items()
    ]
    with replaced(Path(snakemake.output.html)) as path:
        path.write_text(html_page("\n\n".join(["# The study", *blocks])))
