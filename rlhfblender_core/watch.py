"""Watching model folders: generates episodes for new checkpoints of the experiments that are followed.

Each look is one run: it makes what it finds, and ends. What can't be used counts as a problem once; the registry
remembers what was already reported, which would hide what is new otherwise.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.checkpoints.changes import each_change
from rlhfblender_core.checkpoints.select import wanted_as
from rlhfblender_core.dataset.layout import RANDOM
from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    InvalidParameterError,
    NoCheckpointYetError,
    RegistryNotUsableError,
    RegistryUnavailableError,
    RequestError,
    RLHFBlenderError,
    SpacesDifferError,
    one_line,
)
from rlhfblender_core.export.formats import ExportOptions
from rlhfblender_core.export.request import open_target
from rlhfblender_core.export.run import export_all
from rlhfblender_core.generate import carry_out
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.planning.following import DEFAULT_EPISODES, begin_following, episodes_wanted
from rlhfblender_core.planning.request import RANDOM_BASELINE, GenerationRequest
from rlhfblender_core.planning.unfilled_checkpoints import find_waiting
from rlhfblender_core.planning.work import make_plan, plan_work
from rlhfblender_core.registry import ExperimentRecord, open_registry, registry_if_any
from rlhfblender_core.step_runner import LocalRunner, StepRunner
from rlhfblender_core.steps import LocalSteps
from rlhfblender_core.wording import InWords, counted

#: What a checkpoint itself is to blame for; looking again changes nothing until its file does.
_BROKEN = (CheckpointNotUsableError, SpacesDifferError)

#: Generates episodes of an experiment's checkpoints, so many each; returns why some failed, None for success. Raises
#: RequestError where the request is refused.
Filler = Callable[[str, Sequence[int | str], int], str | None]


class Finding(StrEnum):
    """What was found about a checkpoint that didn't have its episodes."""

    FILLED = "has its episodes now"
    UNSETTLED = "still being written"
    UNUSABLE = "can't be used"
    FAILED = "episodes failed"


@dataclass(frozen=True)
class WatchRow:
    """A row of a report.

    Attributes:
        experiment: its name.
        label: of the checkpoint; empty for the whole folder.
        finding: what was found.
        reason: why, where it isn't good.
        is_known: whether it was reported before.
    """

    experiment: str
    label: str
    finding: Finding
    reason: str = ""
    is_known: bool = False

    @property
    def name(self) -> str:
        """``experiment/label``."""
        return f"{self.experiment}/{self.label}".rstrip("/")

    @property
    def is_filled(self) -> bool:
        """Whether the checkpoint has its episodes now."""
        return self.finding is Finding.FILLED

    @property
    def is_problem(self) -> bool:
        """Whether somebody should look, who hasn't been told before."""
        return self.finding in (Finding.UNUSABLE, Finding.FAILED) and not self.is_known


@dataclass
class WatchReport(InWords):
    """What was found about checkpoints that didn't have their episodes, and what was done."""

    rows: list[WatchRow] = field(default_factory=list)

    @property
    def problems(self) -> list[WatchRow]:
        """Those that somebody should look at."""
        return [row for row in self.rows if row.is_problem]

    @property
    def summary(self) -> str:
        """One line."""
        filled = self._names(Finding.FILLED)
        parts = [f"{counted(len(filled), 'checkpoint')} filled" + (f": {', '.join(filled)}" if filled else "")]
        unsettled = self._names(Finding.UNSETTLED)
        parts += [f"still being written: {', '.join(unsettled)}"] if unsettled else []
        known = [row.name for row in self.rows if row.is_known]
        parts += [f"can't be used, as reported before: {', '.join(known)}"] if known else []
        if self.problems:
            first = self.problems[0]
            parts.append(f"{counted(len(self.problems), 'problem')}: {first.name}: {first.reason}")
        return "; ".join(parts)

    def _names(self, finding: Finding) -> list[str]:
        return [row.name for row in self.rows if row.finding is finding]


@check_arguments
def watch(  # noqa: PLR0913 (one per flag)
    *,
    exp: Sequence[str] = (),
    num_episodes: int | None = None,
    settle_seconds: float = 60,
    export_to: str | None = None,
    workers: int | None = None,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> WatchReport:
    """Generates episodes for checkpoints that are newer than those chosen, without Prefect.

    Args:
        exp: experiments to look after; none for all that are followed.
        num_episodes: per checkpoint; None for as many as the experiment has.
        settle_seconds: leave files alone that changed less than so many seconds ago.
        export_to: folder that what was filled is exported to, in RLHF-Blender's format; None for none.
        workers: worker processes; None for the cores that this process may use.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Raises:
        RequestError: an experiment isn't registered, or has no model folder.
    """
    locations = locate(data_root, database_url, storage_options)

    def fill(experiment: str, checkpoints: Sequence[int | str], episodes: int) -> str | None:
        request = GenerationRequest(exp=experiment, checkpoints=checkpoints, num_episodes=episodes)
        report = carry_out(plan_work(request, locations), LocalSteps(locations, workers))
        return report.first_failure if report.failed else None

    check_export_to(export_to, locations)
    report = WatchReport()
    for experiment in find_experiments(exp, locations):
        report.rows += look_after(experiment, num_episodes, settle_seconds, locations, fill)
        if export_to is not None:
            report.rows += export_followed(experiment.name, export_to, locations, LocalRunner())
    return report


def check_export_to(out: str | None, locations: Locations) -> None:
    """Refuses a folder that can't be exported to.

    Raises:
        InvalidParameterError: it holds something else.
    """
    if out is not None:
        open_target(out, locations.open_root())


def export_followed(experiment: str, out: str, locations: Locations, runner: StepRunner) -> list[WatchRow]:
    """Brings an export in RLHF-Blender's format up to date; gives a row where episodes were left out of it.

    Args:
        experiment: that was looked after.
        out: folder of the export.
        locations: data root and registry.
        runner: how each step is done.
    """
    with registry_if_any(locations.database_url) as registry:
        if registry is None or not registry.summarise(experiment):
            return []
    try:
        report = export_all(out, "rlhfblender", [experiment], ExportOptions(), runner, locations)
    except RLHFBlenderError as error:  # the others are looked after all the same
        return [WatchRow(experiment, "", Finding.FAILED, f"its export: {one_line(error)}")]
    return (
        []
        if report.is_whole
        else [WatchRow(experiment, "", Finding.FAILED, f"its export: {report.summary.splitlines()[0]}")]
    )


def each_look(names: Sequence[str], settle_seconds: float, locations: Locations) -> Iterator[list[ExperimentRecord]]:
    """The experiments to look after: at once, and for ever when something has changed in one of their folders.

    A registry that is out of reach for a while (its server starts again) is asked again every second.

    Args:
        names: of experiments; none for all that are followed, also those that will be.
        settle_seconds: how long a folder must be quiet after a change.
        locations: data root and registry.

    Raises:
        InvalidParameterError: an experiment isn't registered, or has no model folder.
    """
    known = find_experiments(names, locations)

    def wanted() -> list[ExperimentRecord]:
        nonlocal known
        if not names:
            with contextlib.suppress(RegistryUnavailableError):
                known = find_experiments((), locations, reached_before=True)
        return known

    for _ in each_change(lambda: [str(record.model_path) for record in wanted()], settle_seconds):
        yield wanted()


def find_experiments(
    names: Sequence[str], locations: Locations, *, reached_before: bool = False
) -> list[ExperimentRecord]:
    """The experiments named, or all that are followed. What is newer than the chosen checkpoints is known of each.

    Args:
        names: of experiments; none for all that are followed.
        locations: data root and registry.
        reached_before: whether the registry answered this command before.

    Raises:
        InvalidParameterError: one isn't registered, or has no model folder.
        RegistryUnavailableError: the registry is out of reach for now.
    """
    with registry_if_any(locations.database_url, reached_before=reached_before) as registry:
        known = {} if registry is None else {record.name: record for record in registry.list_experiments()}
        for name in names:
            if name not in known:
                raise InvalidParameterError(f"No experiment {name!r} is registered. Those that are: {_listed(known)}.")
            if known[name].following is None:
                following = begin_following(known[name], registry, locations.storage_options)
                known[name] = replace(known[name], following=following)
    return [known[name] for name in names] or [record for record in known.values() if record.following]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def look_after(
    experiment: ExperimentRecord, num_episodes: int | None, settle_seconds: float, locations: Locations, fill: Filler
) -> list[WatchRow]:
    """Fills the experiment's new checkpoints; gives a row for each that didn't have its episodes before.

    Args:
        experiment: from :func:`find_experiments`.
        num_episodes: per checkpoint; None for as many as the experiment has.
        settle_seconds: leave files alone that changed less than so many seconds ago.
        locations: data root and registry.
        fill: generates the episodes.
    """
    look = _Look(experiment.name, num_episodes or DEFAULT_EPISODES, locations, fill)
    try:
        with open_registry(locations.database_url, create=False, reached_before=True) as registry:
            if num_episodes is None and experiment.following is not None:
                look.num_episodes = episodes_wanted(experiment.name, experiment.following, registry)
            waiting = find_waiting(
                experiment,
                look.num_episodes,
                locations.open_root(),
                registry,
                settle_seconds=settle_seconds,
                options=locations.storage_options,
            )
        for label in waiting.unsettled:
            look.add(label, Finding.UNSETTLED)
        look.fill(look.usable(waiting.ready))
    except NoCheckpointYetError:  # it is being trained
        pass
    except _BROKEN as error:
        look.add("", Finding.UNUSABLE, one_line(error))
    except RLHFBlenderError as error:  # the others are looked after all the same
        look.add("", Finding.FAILED, one_line(error))
    return _marked(experiment.name, look.rows, locations)


@dataclass
class _Look:
    """At one experiment's model folder."""

    experiment: str
    num_episodes: int
    locations: Locations
    filler: Filler
    rows: list[WatchRow] = field(default_factory=list)

    def add(self, label: str, finding: Finding, reason: str = "") -> None:
        self.rows.append(WatchRow(self.experiment, label, finding, reason))

    def usable(self, labels: Sequence[str]) -> Sequence[str]:
        """Those that can act in the environment, as far as their files tell; looks at each where not all can."""
        if not labels:
            return labels
        try:
            make_plan(GenerationRequest(exp=self.experiment, checkpoints=_wanted(labels)), self.locations)
        except _BROKEN as error:
            if len(labels) > 1:
                return [label for label in labels if self.usable([label])]
            self.add(labels[0], Finding.UNUSABLE, one_line(error))
            return []
        return labels

    def fill(self, labels: Sequence[str]) -> None:
        """All at once; one by one where one is refused, so that it doesn't keep the others from being made."""
        together = [labels] if labels else []
        while together:
            labels = together.pop(0)
            try:
                failure = self.filler(self.experiment, _wanted(labels), self.num_episodes)
            except RequestError as error:
                if len(labels) > 1:
                    together += [[label] for label in labels]
                    continue
                failure = one_line(error)
            if failure is None:
                for label in labels:
                    self.add(label, Finding.FILLED)
            else:
                self.add(", ".join(labels), Finding.FAILED, failure)


def _marked(experiment: str, rows: Sequence[WatchRow], locations: Locations) -> list[WatchRow]:
    """The rows, with those known that were reported before; the registry remembers them for the next look."""
    unusable = {row.label: row.reason for row in rows if row.finding is Finding.UNUSABLE}
    try:
        with open_registry(locations.database_url, create=False, reached_before=True) as registry:
            before = registry.report_unusable(experiment, unusable)
    except (RegistryNotUsableError, RegistryUnavailableError) as error:  # the next look tells it again
        is_told = any(row.finding is Finding.FAILED for row in rows)
        return [*rows] if is_told else [*rows, WatchRow(experiment, "", Finding.FAILED, one_line(error))]
    return [
        WatchRow(
            row.experiment,
            row.label,
            row.finding,
            row.reason,
            is_known=row.finding is Finding.UNUSABLE and before.get(row.label) == row.reason,
        )
        for row in rows
    ]


def _wanted(labels: Sequence[str]) -> list[int | str]:
    return [RANDOM_BASELINE if label == RANDOM else wanted_as(label) for label in labels]
