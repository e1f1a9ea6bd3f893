"""Worker processes: what they are started from, how they begin, and how they end.

On Linux they are forked from a template, a process of its own that has loaded the libraries once (multiprocessing's
fork server): loading torch takes seconds, forking milliseconds. The template can be started early, while the command
does something else. Elsewhere each worker loads them by itself, because forking isn't safe there.
"""

import atexit
import contextlib
import gc
import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rlhfblender_core.lifelines import remember_lifelines
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.workers import HASH_SEED
from rlhfblender_core.workers.progress import start_counter

_CAN_FORK = sys.platform == "linux"
#: The first keeps the others quiet.
_PRELOAD = ("rlhfblender_core.workers.forkserver_preload", "rlhfblender_core.rollout.shards")
#: So long workers may take to end by themselves.
_END_S = 5.0
#: Sockets have short names: 107 bytes, of which multiprocessing needs 18.
_LONGEST_FOLDER = 89
_PRELOAD_TRAINED = (*_PRELOAD, "torch", "stable_baselines3", "sb3_contrib", "rlhfblender_core.policies.actor_critic")


def start_fork_server(*, trained: bool) -> None:
    """Begins to load what worker processes need, in the background; does nothing where that has begun.

    Args:
        trained: whether agents are trained; random ones don't need torch.
    """
    if _CAN_FORK:
        multiprocessing.set_forkserver_preload(list(_PRELOAD_TRAINED if trained else _PRELOAD))
        _keep_socket_in_scratch()
        with starting_processes():
            multiprocessing.resource_tracker.ensure_running()
        with starting_processes():  # again: the tracker's start unblocks them
            multiprocessing.forkserver.ensure_running()


def _keep_socket_in_scratch() -> None:
    """Has multiprocessing keep the template's socket where the next run finds it, should this process be killed."""
    settings = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    if "tempdir" in settings:
        return
    stack = contextlib.ExitStack()
    folder = str(stack.enter_context(open_scratch()))
    if len(folder) > _LONGEST_FOLDER:
        stack.close()
        return
    settings["tempdir"] = folder
    atexit.register(stack.close)


def make_pool(processes: int, progress_folder: Path) -> ProcessPoolExecutor:
    """A pool of workers, which start when there is work; they count into the folder and print nothing."""
    start_fork_server(trained=False)
    return ProcessPoolExecutor(
        processes,
        mp_context=process_context(),
        initializer=_start_worker,
        initargs=(progress_folder, dict(os.environ)),
    )


def end_pool(pool: ProcessPoolExecutor) -> None:
    """Ends the workers at once; unfinished work is dropped.

    Also those of a broken pool: its own thread ends them, but one that a call starts at that moment it waits for, for
    ever.
    """
    held = pool._processes or {}  # noqa: SLF001 (public only from Python 3.14 on)
    pool.shutdown(wait=False, cancel_futures=True)  # waits for a call that starts one; then none is started any more
    processes = list(held.values())
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _END_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:  # its environment handles the signal, or has threads that never end
            process.kill()
            process.join(1)


def worker_processes(pool: ProcessPoolExecutor) -> list[multiprocessing.process.BaseProcess]:
    """The pool's processes that have been started."""
    return list((pool._processes or {}).values())  # noqa: SLF001 (public only from Python 3.14 on)


def how_it_ended(processes: Sequence[multiprocessing.process.BaseProcess]) -> str:
    """How a worker process ended, in words: ``exit code 0``, ``SIGSEGV``."""
    for process in processes:
        process.join(1)
        code = process.exitcode
        if code is not None:
            return f"exit code {code}" if code >= 0 else _signal_name(-code)
    return "it can't be reached any more"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_main_module_is_hidden = threading.Lock()


@contextlib.contextmanager
def starting_processes() -> Iterator[None]:
    """Has processes started inside hear no signals yet, hash texts alike, and import no main module nor current folder.

    multiprocessing has each worker import the file that was started, for functions that are defined in it. Ours come
    from modules; a script without ``if __name__ == "__main__"`` would run again in every worker.
    """
    main = vars(sys.modules["__main__"])
    with _main_module_is_hidden, interrupts_blocked():
        kept: dict[str, object] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
        main["__spec__"] = None
        # Python looks into the current folder before its own modules otherwise: it may be somebody's, and hold any.
        variables = {"PYTHONHASHSEED": HASH_SEED, "PYTHONSAFEPATH": "1"}
        before = {name: os.environ[name] for name in variables if name in os.environ}
        os.environ.update(variables)
        try:
            yield
        finally:
            main.update(kept)
            for name in variables:
                del os.environ[name]
            os.environ.update(before)


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Has processes that are started inside not hear Ctrl-C or a closed terminal until they ignore both by themselves.

    A new process inherits the blocked signals of the thread that starts it; one that is interrupted while Python
    starts would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(progress_folder: Path, variables: Mapping[str, str]) -> None:
    begin_worker(variables)
    start_counter(progress_folder)


def process_context() -> multiprocessing.context.BaseContext:
    """How worker processes are started here."""
    return multiprocessing.get_context("forkserver" if _CAN_FORK else "spawn")


def begin_worker(variables: Mapping[str, str]) -> None:
    """Makes a worker end with its parent: one whose parent was killed would wait for work for ever.

    Args:
        variables: of the parent's environment.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()
    leave_group()
    # What was forked stays shared with the template: garbage is only looked for among what comes from now on.
    gc.freeze()
    gc.enable()
    # The template has those of the moment when it was started.
    os.environ.clear()
    os.environ.update(variables)
    for name in ("SIGINT", "SIGHUP"):  # the main process decides what they mean
        if hasattr(signal, name):
            signal.signal(signal.Signals[name], signal.SIG_IGN)
    keep_quiet()
    remember_lifelines()


def leave_group() -> None:
    """Has this process a group of its own.

    An environment that signals its group would end the command and all workers; and what ends a command by signalling
    its group, as ``timeout`` does, leaves it to the command to end its workers.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)  # (of this thread, which no environment ever has)


def keep_quiet() -> None:
    """Environments and libraries print and warn; the terminal belongs to the command. Errors travel as exceptions."""
    warnings.filterwarnings("ignore")
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # also what native libraries print
        os.dup2(nowhere, stream)
    os.close(nowhere)
