"""What a generate run will do, found out before anything is registered, written or started."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from rlhfblender_core.dataset.existing import Existing, find_existing
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.plan import GenerationPlan, plan_generation
from rlhfblender_core.planning.request import GenerationRequest
from rlhfblender_core.planning.same_request import check_same_request
from rlhfblender_core.planning.unknown_files import check_unknown_files
from rlhfblender_core.registry import registry_if_any
from rlhfblender_core.rollout.pace import Pace, cut_shards
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard, Shard
from rlhfblender_core.storage import check_writable


@dataclass(frozen=True)
class CheckpointWork:
    """What is to be done for one checkpoint.

    Attributes:
        settings: how its episodes are rolled out.
        existing: what exists.
        num_episodes: how many there shall be.
        replace: whether those that exist are regenerated.
    """

    settings: RolloutSettings
    existing: Existing
    num_episodes: int
    replace: bool

    @property
    def key(self) -> CheckpointKey:
        """Experiment and checkpoint."""
        return self.existing.key

    @cached_property
    def missing(self) -> tuple[int, ...]:
        """Episodes to make."""
        wanted = range(self.num_episodes)
        return tuple(wanted) if self.replace else self.existing.missing(wanted)

    def shards(self, pace: Pace) -> Iterator[PendingShard]:
        """The missing episodes, cut as the next shard is asked for."""
        same, present = self.existing.digests.get(self.settings.digest, frozenset()), self.existing.present
        for episodes in cut_shards(self.missing, pace):
            shard = Shard(self.key, self.settings, episodes, self.replace)
            yield PendingShard(shard, same.intersection(episodes), present.intersection(episodes))


@dataclass(frozen=True)
class GenerationWork:
    """A request, resolved against what exists.

    Attributes:
        plan: what is to be registered, and with which settings episodes are made.
        checkpoints: what is to be done for each; empty when nothing is to be generated.
    """

    plan: GenerationPlan
    checkpoints: tuple[CheckpointWork, ...]

    @property
    def missing(self) -> int:
        """How many episodes have to be made."""
        return sum(len(checkpoint.missing) for checkpoint in self.checkpoints)

    @property
    def digests(self) -> dict[str, str]:
        """What other runs on the experiment are told of this one: the request's digest, by checkpoint.

        A run that replaces episodes shares its work with nobody: what another one made meanwhile would be replaced.
        """
        return {
            work.settings.label: f"replaced by {uuid.uuid4().hex}" if work.replace else work.settings.digest
            for work in self.checkpoints
            if work.missing
        }

    @property
    def is_trained(self) -> bool:
        """Whether a trained agent makes some of them."""
        return any(work.missing and work.settings.agent.is_trained for work in self.checkpoints)

    def shards(self, pace: Pace) -> Iterator[PendingShard]:
        """The missing episodes of all checkpoints, cut as the next shard is asked for."""
        for checkpoint in self.checkpoints:
            yield from checkpoint.shards(pace)


def plan_work(request: GenerationRequest, locations: Locations) -> GenerationWork:
    """Resolves the request against the registry and what is published, and checks it; writes nothing.

    Raises:
        RequestError: it can't be carried out.
    """
    plan = make_plan(request, locations)
    return GenerationWork(plan, tuple(_checkpoint_work(plan, locations)))


def make_plan(request: GenerationRequest, locations: Locations) -> GenerationPlan:
    """Resolves the request against the registry and checks it; writes nothing.

    Raises:
        RequestError: it can't be carried out.
    """
    check_writable(locations.open_root())
    with registry_if_any(locations.database_url) as registry:
        return plan_generation(request, registry, locations.cache, locations.storage_options, locations.trust())


def _checkpoint_work(plan: GenerationPlan, locations: Locations) -> Iterator[CheckpointWork]:
    if plan.experiment is None:
        return
    root = locations.open_root()
    with registry_if_any(locations.database_url) as registry:
        for settings in plan.settings:
            key = CheckpointKey(plan.experiment.name, settings.label)
            existing = find_existing(root, registry, key, settings.digest)
            if not plan.replace:
                check_same_request(root, existing, settings, range(plan.num_episodes))
            known = replace(settings, reproducible=_known(existing, settings))
            work = CheckpointWork(known, existing, plan.num_episodes, plan.replace)
            check_unknown_files(existing, work.missing, plan.environment.env_id, locations)
            yield work


def _known(existing: Existing, settings: RolloutSettings) -> bool | None:
    """What an episode of the same request says of its environment, so that it need not be tried out again."""
    sample = existing.sample
    return sample.reproducible if sample is not None and sample.request_digest == settings.digest else None
