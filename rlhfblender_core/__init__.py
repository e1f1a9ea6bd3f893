"""Episodes of RL agents for human feedback, as a plain library. Never imports Prefect.

``generate(env="CartPole-v1", random=True, num_episodes=5, data_root="data")`` makes episodes, ``open_data_set("data")``
gives those that are there; the other functions are what the commands below ``flows/`` do, with the same names and
flags. Errors are in :mod:`rlhfblender_core.errors`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhfblender_core.delete import delete
    from rlhfblender_core.export.run import export
    from rlhfblender_core.gallery.write import gallery
    from rlhfblender_core.generate import generate
    from rlhfblender_core.import_data.run import import_data
    from rlhfblender_core.reading.data_set import open_data_set
    from rlhfblender_core.register import register
    from rlhfblender_core.repair import repair
    from rlhfblender_core.train.run import train
    from rlhfblender_core.verify import verify
    from rlhfblender_core.watch import watch

__all__ = [
    "delete",
    "export",
    "gallery",
    "generate",
    "import_data",
    "open_data_set",
    "register",
    "repair",
    "train",
    "verify",
    "watch",
]

#: Where each is defined. They are imported when they are first used: a command starts without what it doesn't need.
_MODULES = {
    "delete": "delete",
    "export": "export.run",
    "gallery": "gallery.write",
    "generate": "generate",
    "import_data": "import_data.run",
    "open_data_set": "reading.data_set",
    "register": "register",
    "repair": "repair",
    "train": "train.run",
    "verify": "verify",
    "watch": "watch",
}


class _Package(ModuleType):
    """Keeps the functions' names for them: Python binds a submodule to its package when it is first imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        function = getattr(import_module(f"{self.__name__}.{_MODULES[name]}"), name)
        setattr(self, name, function)
        return function


sys.modules[__name__].__class__ = _Package
