"""PipeOps: efficiency methods as operators on fine-tuned transformers, in every order.

Importing this package is cheap: torch and transformers are imported by the modules that need them.
"""

import sys
from importlib.metadata import version
from types import ModuleType

import wrapt

__version__ = version("pipeops")

_NEEDED = {
    "transformers.modeling_layers": "GradientCheckpointingLayer",
}
"""Modules that our models import, and a class of each: without it the module is imported half."""


def _register_model(_: ModuleType) -> None:
    """Let ``AutoModelForSequenceClassification`` load our checkpoints, whenever transformers comes in.

    Some of its modules import the Auto classes before they are complete. Then it waits for their end.
    """
    if all(hasattr(sys.modules[name], part) for name, part in _NEEDED.items() if name in sys.modules):
        import pipeops.models.multi_exit  # noqa: F401


for _name in ("transformers.models.auto.modeling_auto", *_NEEDED):
    wrapt.register_post_import_hook(_register_model, _name)
