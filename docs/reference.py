"""Write docs/reference.md, the page of all commands, from the command line itself: `make reference`."""

import inspect
from pathlib import Path
from textwrap import dedent, fill
from typing import Any

import typer

from pipeops.cli import EXIT_STATUS, app
from pipeops.text import markdown_table

PAGE = Path(__file__).with_suffix(".md")
WIDTH = 118
INTRODUCTION = """# Commands

`make reference` writes this page from the code. `pipeops COMMAND --help` says the same.

Results go to standard output. Messages and progress go to standard error: a bar with the time left on a
terminal, few lines in a log. `pipeops --install-completion` lets your shell complete commands and options."""


def reference() -> str:
    """The page."""
    group: Any = typer.main.get_command(app)
    status = [[str(number), meaning] for number, meaning in EXIT_STATUS.items()]
    parts = [INTRODUCTION, markdown_table(["exit status", "meaning"], status)]
    for name, command in group.commands.items():
        parts += _section(name, command, group)
    return "\n\n".join(parts) + "\n"


def _section(name: str, command: Any, group: Any) -> list[str]:
    """A command: what it does, its arguments and options as in its help, and its example."""
    context_class = command.context_class
    context = context_class(command, info_name=name, parent=context_class(group, info_name="pipeops"))
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    records = [
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if "--help" not in parameter.opts
    ]
    options = [
        fill(f"- `{what}`: {' '.join(help.split())}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for what, help in records
    ]
    example = dedent(command.epilog.partition("Example:\n")[2]).strip()
    return [
        f"## {name}",
        inspect.cleandoc(command.help),
        f"```\n{usage}\n```",
        "\n".join(options),
        f"For example:\n\n```\n{example}\n```",
    ]


if __name__ == "__main__":
    PAGE.write_text(reference())
