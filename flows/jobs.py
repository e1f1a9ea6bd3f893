"""What a generate run will do, found out before anything is registered, written or started."""

from contextlib import ExitStack
from dataclasses import dataclass

from flows.execution.prefect_steps import CheckpointWork
from flows.execution.task_runners import RunnerChoice
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.planning.plan import GenerationPlan, plan_generation
from rlhfblender_core.planning.request import GenerationRequest
from rlhfblender_core.planning.same_request import check_same_request
from rlhfblender_core.registry import open_existing_registry
from rlhfblender_core.runs.sharing import Making
from rlhfblender_core.storage import check_writable
from rlhfblender_core.workers.processes import start_fork_server
from tasks.config import Locations, cache_folder, storage_options


@dataclass(frozen=True)
class Job:
    """A request, resolved against what is there.

    Attributes:
        plan: what is to be registered, and with which settings episodes are made.
        work: what is to be done per checkpoint; empty when nothing is to be generated.
    """

    plan: GenerationPlan
    work: tuple[CheckpointWork, ...]

    @property
    def missing(self) -> int:
        """How many episodes have to be made."""
        return sum(len(checkpoint.missing) for checkpoint in self.work)

    @property
    def making(self) -> Making | None:
        """Which requests' episodes have to be made; None without an experiment."""
        if self.plan.experiment is None:
            return None
        digests = {part.settings.label: part.settings.digest for part in self.work if part.missing}
        return Making(self.plan.experiment.name, digests)

    @property
    def is_trained(self) -> bool:
        """Whether a trained agent makes some of them."""
        return any(checkpoint.missing and checkpoint.settings.agent.is_trained for checkpoint in self.work)


def make_job(request: GenerationRequest, locations: Locations) -> Job:
    """Resolves the request against the registry and what is published, and checks it; writes nothing.

    Raises:
        RequestError: it can't be carried out.
    """
    plan = make_plan(request, locations)
    return Job(plan, _work(plan, locations))


def make_plan(request: GenerationRequest, locations: Locations) -> GenerationPlan:
    """Resolves the request against the registry and checks it; writes nothing.

    Raises:
        RequestError: it can't be carried out.
    """
    check_writable(locations.open_root())
    registry = open_existing_registry(locations.database_url)
    with ExitStack() as stack:
        if registry is not None:
            stack.enter_context(registry)
        return plan_generation(request, registry, cache_folder(), storage_options(), locations.trust())


def _work(plan: GenerationPlan, locations: Locations) -> tuple[CheckpointWork, ...]:
    if plan.experiment is None:
        return ()
    work = []
    for settings in plan.settings:
        published = read_published(locations.open_root(), CheckpointKey(plan.experiment.name, settings.label))
        if not plan.replace:
            check_same_request(published, settings, range(plan.num_episodes))
        work.append(CheckpointWork(settings, published, plan.num_episodes, plan.replace))
    return tuple(work)


def warm_up(job: Job, choice: RunnerChoice) -> None:
    """Begins to load what the job's worker processes need, while something else is done."""
    if job.missing and choice.uses_processes(job.missing):
        start_fork_server(trained=job.is_trained)
