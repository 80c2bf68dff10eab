"""The one exception that a user is meant to read."""


class PipeOpsError(Exception):
    """Bad input. The message is one line: what is wrong, where (key, file or value), and the remedy.

    The command line prints it without a traceback and exits with status 1.
    """
