"""PipeOps: efficiency methods as operators on fine-tuned transformers, in every order.

Importing this package is cheap: torch and transformers are imported by the modules that need them.
"""

from importlib.metadata import version
from types import ModuleType

import wrapt

__version__ = version("pipeops")


@wrapt.when_imported("transformers.models.auto.modeling_auto")
def _register_model(_: ModuleType) -> None:
    """Let ``AutoModelForSequenceClassification`` load our checkpoints, whenever transformers comes in."""
    import pipeops.models.multi_exit  # noqa: F401
