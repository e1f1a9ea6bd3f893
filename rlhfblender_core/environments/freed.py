"""Environments that refer to themselves (``env.renderer.env``) are freed by the thread that made and closed them.

Python frees them when it next looks for garbage, in whichever thread that happens to be; graphics contexts print pages
of errors then. A worker process of ours has one thread that runs Python; ``inprocess`` and Dask's workers have several.
"""

import contextlib
import gc
import multiprocessing
import threading
import weakref
from typing import Any

import gymnasium as gym


class _Closed(threading.local):
    """The environments that this thread has closed, each with what it and its wrappers hold."""

    def __init__(self) -> None:
        self.watched: list[list[weakref.ref[Any]]] = []


_closed = _Closed()
#: Classes of what is kept when its environment is gone (a table of the module's): looking for garbage is no use.
_kept: set[type] = set()


def watch_closed(env: gym.Env[Any, Any]) -> None:
    """Remembers that this thread closes an environment that can render, without keeping it."""
    is_alone = multiprocessing.parent_process() and threading.current_thread() is threading.main_thread()
    if is_alone or getattr(env, "render_mode", None) is None:
        return
    layers: list[Any] = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(vars(layers[-1]).get("env"))
    held = [value for layer in layers for value in getattr(layer, "__dict__", {}).values()]
    watched = []
    for each in (*reversed(layers), *held):
        if type(each) not in _kept:
            with contextlib.suppress(TypeError):  # numbers, lists and the like
                watched.append(weakref.ref(each))
    _closed.watched.append(watched)


def free_closed_environments() -> None:
    """Frees what this thread has closed; to be called when nothing refers to it, not even an error's traceback.

    Looking for garbage costs up to 0.2 s, which is spent where something outlives its environment: CarRacing,
    BabyAI and highway-env refer to themselves.
    """
    watched, _closed.watched = _closed.watched, []
    if any(ref() is not None for refs in watched for ref in refs):
        gc.collect()
        for innermost, *others in filter(None, watched):
            if innermost() is None:
                _kept.update(type(kept) for ref in others if (kept := ref()) is not None)
