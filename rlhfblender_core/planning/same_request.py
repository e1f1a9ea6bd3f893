"""Whether what is published came from the request that is asked for now."""

from collections.abc import Iterable

from rlhfblender_core.dataset.existing import Existing
from rlhfblender_core.dataset.layout import EpisodeKey, manifest_path
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.errors import RegistryConflictError
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.storage import DataRoot, read_many
from rlhfblender_core.wording import counted


def check_same_request(root: DataRoot, existing: Existing, settings: RolloutSettings, wanted: Iterable[int]) -> None:
    """Makes sure that what is there came from the same request.

    Args:
        root: the data root.
        existing: what is there.
        settings: of the request.
        wanted: numbers of the episodes asked for.

    Raises:
        RegistryConflictError: an episode among ``wanted`` was made otherwise; the message says what differs.
    """
    made_otherwise = [numbers for digest, numbers in existing.digests.items() if not settings.made(digest)]
    others = frozenset[int]().union(*made_otherwise).intersection(wanted)
    if not others:
        return
    key = existing.key
    reason = _difference(_manifest(root, EpisodeKey(key.experiment, key.checkpoint, min(others))), settings)
    raise RegistryConflictError(
        f"Experiment {key.experiment!r} at {key.checkpoint} has {counted(len(others), 'episode')} made with {reason}. "
        "Use another --exp, or --overwrite to make them anew."
    )


def _manifest(root: DataRoot, key: EpisodeKey) -> Manifest | None:
    path = manifest_path(key)
    content = read_many(root, [path]).get(path)
    return None if content is None else parse_manifest(content, path)


def _difference(manifest: Manifest | None, settings: RolloutSettings) -> str:
    """What was different when the episode was made, in words."""
    if manifest is None:  # deleted in this moment
        return "other settings"
    identity = settings.identity()
    options = settings.options
    later = {name: options.later().get(name) for name in {**manifest.options, **options.later()}}
    later.pop("action_mask_method", None)  # which older manifests say elsewhere
    before_and_now = {
        "another environment": (manifest.environment.id, settings.environment.env_id),
        "another agent" if manifest.policy.kind == "agent" else "another checkpoint file": (
            manifest.policy.checkpoint_sha256,
            settings.agent.sha256,
        ),
        f"--seed {manifest.run_seed}": (manifest.run_seed, options.seed),
        f"--max-steps-per-episode {manifest.max_steps}": (manifest.max_steps, options.max_steps_per_episode),
        f"fps {manifest.fps}": (manifest.fps, identity["fps"]),
        "other --deterministic": (manifest.policy.deterministic, options.deterministic),
        "another --action-mask-method": (manifest.policy.action_mask_method, options.action_mask_method),
        **{f"another --{name.replace('_', '-')}": (manifest.options.get(name), value) for name, value in later.items()},
        "other environment kwargs": (
            manifest.environment.kwargs | manifest.environment.spec_kwargs,
            dict(settings.environment.kwargs) | dict(settings.environment.spec_kwargs),
        ),
    }
    return next((what for what, (before, now) in before_and_now.items() if before != now), "other settings")
