"""Before anything is rolled out: the agent acts once in a worker, and its environment is tried out in two processes."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from weakref import WeakKeyDictionary

from rlhfblender_core.environments.make import check_kwargs
from rlhfblender_core.errors import WorkerLostError
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import check_agent
from rlhfblender_core.rollout.trial import Moments, tried_elsewhere
from rlhfblender_core.workers.pool import Workers


def check_in_workers(workers: Workers, settings: RolloutSettings) -> RolloutSettings:
    """Loads what the settings name in a worker and lets it act once; an environment that ends its process passes.

    Which of its episodes do that is told by each of them.

    Returns:
        The settings, and whether their environment is reproducible.

    Raises:
        RequestError: the environment or the checkpoint can't be used, or they don't fit together.
    """
    elsewhere = None
    if settings.reproducible is None:
        elsewhere = _tried_elsewhere(workers, settings)
    try:
        return workers.run(check_agent, settings, elsewhere)
    except WorkerLostError:
        with suppress(WorkerLostError):
            return workers.run_alone(check_agent, settings, elsewhere)
    return settings


#: What environments gave when they were tried out elsewhere, for all checkpoints of a run.
_tried: WeakKeyDictionary[Workers, dict[str, Moments | None]] = WeakKeyDictionary()


def _tried_elsewhere(workers: Workers, settings: RolloutSettings) -> Moments | None:
    """What the environment gives in a process of its own; None where it fails there, or none can be started."""
    if multiprocessing.current_process().daemon:  # Dask's: such processes may start no others
        return None
    spec, render = settings.environment, settings.options.render
    tried = _tried.setdefault(workers, {})
    name = json.dumps([spec.to_json(), render])
    if name not in tried:
        tried[name] = None
        with ThreadPoolExecutor(1) as thread, suppress(WorkerLostError, OSError):  # the system starts no more
            # A worker imports it meanwhile, which takes a second for some; what goes wrong is told when it is made.
            thread.submit(workers.run, check_kwargs, spec)
            tried[name] = workers.run_alone(tried_elsewhere, spec, render=render)
    return tried[name]
