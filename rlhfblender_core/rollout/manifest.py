"""What the manifest of an episode says: how it was made, what came of it, and its files."""

from collections.abc import Iterator
from pathlib import Path

from rlhfblender_core.dataset.episode_writer import EpisodeSummary, staged_path
from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.dataset.manifests import (
    ArtifactRecord,
    EnvironmentRecordInManifest,
    Manifest,
    file_digest,
)
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.policies.protocol import UncertaintyKind
from rlhfblender_core.rollout.seeding import episode_seed
from rlhfblender_core.rollout.settings import RolloutSettings, versions_of

_VERSIONS = ("rlhfblender-data", "gymnasium", "numpy", "imageio-ffmpeg")


#: What a person is told of an environment that gives other episodes from the same seed.
UNREPRODUCIBLE = "not reproducible: the environment gives other episodes from the same seed"


def describe_episode(
    key: EpisodeKey, settings: RolloutSettings, uncertainty_kind: UncertaintyKind, summary: EpisodeSummary, folder: Path
) -> Manifest:
    """The commit record of an episode.

    Args:
        key: whose it is.
        settings: how it was rolled out.
        uncertainty_kind: of the policy that acted.
        summary: what came of it.
        folder: where its files are; their sizes and digests are recorded.
    """
    options = settings.options
    height, width = summary.frame_shape or (None, None)
    return Manifest(
        experiment=key.experiment,
        checkpoint=key.checkpoint,
        step=settings.agent.step,
        episode=key.episode,
        environment=_environment_record(settings.environment),
        policy=settings.agent.policy_record(options),
        request_digest=settings.digest,
        run_seed=options.seed,
        seed=episode_seed(options.seed, key.episode),
        max_steps=options.max_steps_per_episode,
        options=options.later(),
        episode_return=summary.episode_return,
        episode_length=summary.length,
        terminated=summary.terminated,
        truncated=summary.truncated,
        frames=summary.frames,
        fps=options.fps if summary.frames else None,
        frame_height=height,
        frame_width=width,
        uncertainty_kind=uncertainty_kind.value,
        action_names=settings.action_names,
        versions=versions_of((*_VERSIONS, *settings.packages, *settings.agent.distributions)),
        reproducible=settings.reproducible,
        warnings=(*summary.warnings, *((UNREPRODUCIBLE,) if settings.reproducible is False else ())),
        artifacts=dict(_records(key, folder)),
    )


def _records(key: EpisodeKey, folder: Path) -> Iterator[tuple[ArtifactKind, ArtifactRecord]]:
    for kind in ArtifactKind:
        file = staged_path(folder, kind)
        if file.exists():
            size = file.stat().st_size
            yield kind, ArtifactRecord(path=artifact_path(kind, key), size=size, sha256=file_digest(file))


def _environment_record(spec: EnvironmentSpec) -> EnvironmentRecordInManifest:
    return EnvironmentRecordInManifest(
        id=spec.env_id,
        entry_point=spec.entry_point,
        additional_packages=tuple(spec.additional_packages),
        kwargs=dict(spec.kwargs),
        spec_kwargs=dict(spec.spec_kwargs),
    )
