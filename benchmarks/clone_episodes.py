"""Makes a data set of any size in seconds: a few real episodes, cloned with manifests and registry rows of their own.

    python benchmarks/clone_episodes.py --data-root /tmp/large --episodes 100000
    python benchmarks/clone_episodes.py --data-root /tmp/many --episodes 4 --checkpoints 500
    python benchmarks/clone_episodes.py --data-root /tmp/studies --episodes 2 --experiments 300

It prints the flags with which ``flows/generate.py`` finds all of it finished. ``--episodes`` counts per checkpoint, and
``--checkpoints`` per experiment: with one the agent is random, with more it is a PPO of little training, saved under as
many steps in a folder beside the data root. Run again with more, it adds what is missing. From a test::

    from benchmarks.clone_episodes import clone_episodes
    cloned = clone_episodes(tmp_path / "data", episodes=1000)
    rlhfblender_core.generate(**cloned.flags("clones-0"), data_root=str(cloned.root))

Everything is as a run would have left it: digests, sizes, rows; ``verify`` finds nothing wrong. Only seeds repeat, as
the files do, which are hard links to those of the real episodes: to damage one, replace it, don't write into it.
"""

import argparse
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from rlhfblender_core.dataset.layout import (
    CheckpointKey,
    EpisodeKey,
    artifact_folder,
    artifact_path,
    manifest_folder,
    manifest_path,
)
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.generate import carry_out
from rlhfblender_core.locations import Locations, locate
from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.planning.work import GenerationWork, make_plan, plan_work
from rlhfblender_core.registry import open_registry
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.steps import LocalSteps

#: Real episodes that the others are clones of. File systems allow a file so many names (ext4 65,000).
_REAL, _MAX_LINKS = 5, 60_000
#: Rows in one transaction.
_ROWS = 5000


@dataclass(frozen=True)
class Cloned:
    """What there is.

    Attributes:
        root: the data root.
        episodes: per checkpoint.
        experiments: their names.
        models: folder of the checkpoints; None for a random agent.
        render: whether there are videos and thumbnails.
    """

    root: Path
    episodes: int
    experiments: tuple[str, ...]
    models: Path | None
    render: bool

    def flags(self, experiment: str) -> dict[str, Any]:
        """The request whose episodes these are, as keyword arguments of :func:`rlhfblender_core.generate`."""
        agent = {"model_path": str(self.models), "checkpoints": ["all"]} if self.models else {"random": True}
        asked = {"env": "CartPole-v1", "exp": experiment, "num_episodes": self.episodes, "max_steps_per_episode": 20}
        return {**asked, **agent, "no_render": not self.render}

    def command(self, experiment: str) -> list[str]:
        """The same as arguments of ``flows/generate.py``."""
        agent = ["--model-path", str(self.models), "--checkpoints", "all"] if self.models else ["--random"]
        command = ["--data-root", str(self.root), "--env", "CartPole-v1", "--exp", experiment, *agent]
        command += ["--num-episodes", str(self.episodes), "--max-steps-per-episode", "20"]
        return command if self.render else [*command, "--no-render"]


def clone_episodes(
    root: Path, episodes: int, *, checkpoints: int = 1, experiments: int = 1, render: bool = True
) -> Cloned:
    """Makes the data set, or adds to it what is missing.

    Args:
        root: a folder for a data root, with the registry inside.
        episodes: per checkpoint.
        checkpoints: per experiment; with one the agent is random.
        experiments: how many.
        render: whether the real episodes have videos and thumbnails.
    """
    locations = locate(str(root), state_folder=root.with_name(f"{root.name}-state"))
    models = clone_models(root, checkpoints) if checkpoints > 1 else None
    names = tuple(f"clones-{number}" for number in range(experiments))
    cloned = Cloned(root, episodes, names, models, render)
    sources: list[Manifest] = []
    for name in names:
        sources = _clone_experiment(cloned, name, sources, locations)
    return cloned


def clone_models(root: Path, count: int) -> Path:
    """A folder of checkpoints beside the data root, all of them the same model."""
    folder = root.with_name(f"{root.name}-models")
    first = folder / "rl_model_1000_steps.zip"
    if not first.exists():
        from stable_baselines3 import PPO

        folder.mkdir(parents=True, exist_ok=True)
        PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=1, device="cpu").learn(64).save(first)
    for number in range(2, count + 1):
        target = folder / f"rl_model_{number}000_steps.zip"
        if not target.exists():
            _link(first, target)
    return folder


def _clone_experiment(cloned: Cloned, name: str, sources: list[Manifest], locations: Locations) -> list[Manifest]:
    flags = cloned.flags(name)
    if not sources:  # the real ones, by whoever acts first
        few = {**flags, "num_episodes": min(_REAL, cloned.episodes)}
        if cloned.models:
            few["checkpoints"] = [1000]
        work = plan_work(request_from_flags(few), locations)
        carry_out(work, LocalSteps(locations))
        key = CheckpointKey(name, work.plan.settings[0].label)
        numbers = range(few["num_episodes"])
        manifests = read_published(locations.open_root(), key).manifests
        sources = [manifests[number] for number in numbers]
    plan = make_plan(request_from_flags(flags), locations)
    carry_out(GenerationWork(plan, ()), LocalSteps(locations))  # registers, makes nothing
    with open_registry(locations.database_url) as registry:
        for settings in plan.settings:
            clones = _clones(cloned, name, settings, sources)
            while rows := [episode_record(manifest) for manifest in itertools.islice(clones, _ROWS)]:
                registry.record_episodes(rows)
    return sources


def _clones(cloned: Cloned, name: str, settings: RolloutSettings, sources: list[Manifest]) -> Iterator[Manifest]:
    """Publishes the clones of one checkpoint that aren't there yet; gives their manifests."""
    key = CheckpointKey(name, settings.label)
    for folder in (manifest_folder(key), *(artifact_folder(kind, key) for kind in sources[0].artifacts)):
        (cloned.root / folder).mkdir(parents=True, exist_ok=True)
    existing = {path.name for path in (cloned.root / manifest_folder(key)).iterdir()}
    for number in range(cloned.episodes):
        if f"{number}.json" not in existing:
            yield _clone(cloned.root, EpisodeKey(name, settings.label, number), settings, sources)


def _clone(root: Path, key: EpisodeKey, settings: RolloutSettings, sources: list[Manifest]) -> Manifest:
    source = sources[key.episode % len(sources)]
    records = {
        kind: record.model_copy(update={"path": artifact_path(kind, key)}) for kind, record in source.artifacts.items()
    }
    own: dict[str, object] = {"experiment": key.experiment, "checkpoint": key.checkpoint, "episode": key.episode}
    own |= {"step": settings.agent.step, "request_digest": settings.digest, "artifacts": records}
    # Of the fields, not of the source: its text and digest are cached in it.
    manifest = Manifest.model_construct(**{**{name: getattr(source, name) for name in Manifest.model_fields}, **own})
    for kind in source.artifacts:
        _link(root / source.artifacts[kind].path, root / artifact_path(kind, key))
    (root / manifest_path(key)).write_bytes(manifest.content)
    return manifest


def _link(source: Path, target: Path) -> None:
    if source.stat().st_nlink < _MAX_LINKS:
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a data set of any size in seconds, of clones.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--episodes", type=int, required=True, help="per checkpoint")
    parser.add_argument("--checkpoints", type=int, default=1, help="per experiment; with one the agent is random")
    parser.add_argument("--experiments", type=int, default=1)
    parser.add_argument("--no-render", action="store_true", help="no videos and no thumbnails")
    given = parser.parse_args()
    cloned = clone_episodes(
        given.data_root.absolute(),
        given.episodes,
        checkpoints=given.checkpoints,
        experiments=given.experiments,
        render=not given.no_render,
    )
    print("python flows/generate.py", *cloned.command(cloned.experiments[0]))


if __name__ == "__main__":
    main()
