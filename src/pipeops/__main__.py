"""``pipeops`` and ``python -m pipeops``."""

import sys


def main() -> None:
    """Run the command line; interrupted while that is imported, end as later on."""
    try:
        from pipeops.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
