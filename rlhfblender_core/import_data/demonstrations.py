"""Human demonstrations as RLHF-Blender's server of 2026 keeps them.

``generated_demos/<env>/exp-<id>/checkpoint-<n>/<session>_demo-<k>_<time>.npz``: arrays as an episode's, and in the same
file the pictures that the person saw.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.import_data.sources import DEMONSTRATIONS, SourceCheckpoint, SourceEpisode, SourceExperiment

#: The label of the checkpoint that they become.
DEMO = "demo"

_EXPERIMENT = re.compile(r"exp-(\d{1,9})")
_FILE = re.compile(r".+_demo-\d{1,9}_(\d{8}T\d{6}Z)\.npz")


@dataclass(frozen=True)
class DemonstrationCheckpoint(SourceCheckpoint):
    """The demonstrations of an experiment, at whatever checkpoint they were given, in the order of time.

    Attributes:
        demos: their files.
    """

    demos: tuple[Path, ...] = ()

    def numbers(self) -> list[int]:
        """See :class:`SourceCheckpoint`."""
        return list(range(len(self.demos)))

    def episode(self, number: int) -> SourceEpisode:
        """See :class:`SourceCheckpoint`; there is one file, and none is missing beside it."""
        file = self.demos[number]
        return SourceEpisode(number, {ArtifactKind.EPISODES: file}, dict.fromkeys(ArtifactKind, file))

    def unknown_files(self) -> list[Path]:
        """See :class:`SourceCheckpoint`; the server keeps a text about each demonstration beside it."""
        return []

    @property
    def demonstrations(self) -> tuple[Path, ...]:
        """See :class:`SourceCheckpoint`."""
        return self.demos


def find_demonstrations(folder: Path) -> Iterator[tuple[str, int, DemonstrationCheckpoint]]:
    """The demonstrations in a data folder: the environment as their folder names it, the experiment's id, and them."""
    for outer in sorted((folder / DEMONSTRATIONS).glob("*/exp-*")):
        match = _EXPERIMENT.fullmatch(outer.name)
        found = [file for file in outer.glob("*/*.npz") if _FILE.fullmatch(file.name) and file.is_file()]
        if match and found:
            path = outer.relative_to(folder).as_posix()
            demos = tuple(sorted(found, key=lambda file: (_time(file), file.name, file.parent.name)))
            yield outer.parent.name, int(match[1]), DemonstrationCheckpoint(folder, path, DEMO, "server", demos=demos)


def with_demonstrations(experiments: Sequence[SourceExperiment], folder: Path) -> list[SourceExperiment]:
    """The experiments with their demonstrations; those of which there is nothing else, too."""
    found = list(experiments)
    for env, number, demos in find_demonstrations(folder):
        place = next((i for i, one in enumerate(found) if one.experiment_id == number and _same(one, env)), None)
        if place is None:
            found.append(SourceExperiment(f"{env}_{number}", env.replace("_", "-"), number, (demos,)))
        else:
            found[place] = replace(found[place], checkpoints=(*found[place].checkpoints, demos))
    return found


def _same(experiment: SourceExperiment, env: str) -> bool:
    plain, other = (re.sub(r"[/_: ]", "-", name) for name in (experiment.environment or "", env))
    return plain == other


def _time(file: Path) -> str:
    match = _FILE.fullmatch(file.name)
    return match[1] if match else ""
