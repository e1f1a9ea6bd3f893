"""States of the environment for RLHF-Blender's demonstrations and corrections, taken by playing episodes again.

Episodes are played in a worker process, and only where the environment may be made at all: manifests may be somebody's.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhfblender_core.dataset.layout import ELAPSED_STEPS, IMPORTED
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.environments import EnvironmentSpec, Trust
from rlhfblender_core.environments.registration import entry_point_text, known_registration
from rlhfblender_core.errors import RequestError, WorkerLostError, one_line
from rlhfblender_core.rollout.replay import replay_of, spec_of_manifest
from rlhfblender_core.rollout.replayed_states import ReplayedStates, give_states_back, write_states
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.untrusted.npz import open_arrays
from rlhfblender_core.workers.pool import Workers

#: Environments whose episodes are played again faster than their files are exported, if they are short. Measured in
#: processor time: 12 steps of CartPole 8 ms against 11 ms, 200 of MountainCar 60 against 13, 300 of MiniGrid 160
#: against 18, 300 of Pong 800 against 145.
_CHEAP = ("gymnasium.envs.classic_control", "gymnasium.envs.toy_text")
_CHEAP_STEPS = 25


@dataclass(frozen=True)
class StatesPlan:
    """Whether and how states are exported.

    Attributes:
        wanted: as asked; None for "where it costs less than the export itself".
        trust: what manifests may name to make environments with.
    """

    wanted: bool | None
    trust: Trust

    def is_wanted(self, first: Manifest) -> bool:
        """Whether the checkpoint's episodes have states in the export.

        Args:
            first: manifest of its first episode.
        """
        if self.wanted is not None:
            return self.wanted
        if first.policy.kind == IMPORTED:  # those that it was imported with are there
            return True
        maker = first.environment.entry_point
        if maker is None and (known := known_registration(first.environment.id)) is not None:
            maker = entry_point_text(known.entry_point)
        is_cheap = maker is not None and maker.startswith(_CHEAP) and first.episode_length <= _CHEAP_STEPS
        return is_cheap and first.seed is not None and not first.policy.wrappers


class StateWriter:
    """Plays episodes again, in a worker that starts with the first.

    Args:
        plan: how.
        workers: where.
    """

    def __init__(self, plan: StatesPlan, workers: Workers) -> None:
        self._plan = plan
        self._workers = workers

    def write(self, manifest: Manifest, arrays: Path, file: Path) -> ReplayedStates:
        """Writes an episode's states.

        Args:
            manifest: of the episode.
            arrays: its own ``.npz``.
            file: to be written.
        """
        try:
            if manifest.policy.kind == IMPORTED and _has_states(arrays):
                return self._workers.run(give_states_back, self._admitted(manifest), arrays, file)
            replay = replay_of(manifest, self._plan.trust)
            return self._workers.run(write_states, replay, arrays, file)
        except (RequestError, WorkerLostError) as error:
            reason = "the process died that played it again" if isinstance(error, WorkerLostError) else one_line(error)
            is_asked_for = self._plan.wanted is not None
            return ReplayedStates(written=False, proved=False, obstacle=reason if is_asked_for else None)

    def _admitted(self, manifest: Manifest) -> EnvironmentSpec | None:
        """What the states may be put back into; None where that may not be made."""
        spec = spec_of_manifest(manifest)
        try:
            self._plan.trust.admit(spec)
        except RequestError:
            return None
        return spec


def _has_states(arrays: Path) -> bool:
    with open_arrays(arrays, arrays.name) as loaded:
        return ELAPSED_STEPS in loaded


@contextmanager
def open_state_writer(plan: StatesPlan) -> Iterator[StateWriter]:
    """A writer whose worker ends with the context."""
    with ExitStack() as stack:
        scratch = stack.enter_context(open_scratch())
        yield StateWriter(plan, stack.enter_context(Workers(1, scratch)))
