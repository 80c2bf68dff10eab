"""``python -m pipeops``."""

from pipeops.cli import main

main()
