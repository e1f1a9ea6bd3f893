"""Whether what is published came from the request that is asked for now."""

from collections.abc import Iterable

from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.published import Published
from rlhfblender_core.errors import RegistryConflictError
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.wording import counted


def check_same_request(published: Published, settings: RolloutSettings, wanted: Iterable[int]) -> None:
    """Makes sure that what is there came from the same request.

    Raises:
        RegistryConflictError: an episode among ``wanted`` was made otherwise; the message says what differs.
    """
    digests = {n: published.manifests[n].request_digest for n in wanted if n in published.manifests}
    same = {digest for digest in set(digests.values()) if settings.made(digest)}
    others = [n for n, digest in digests.items() if digest not in same]
    if not others:
        return
    key = published.key
    reason = _difference(published.manifests[others[0]], settings)
    raise RegistryConflictError(
        f"Experiment {key.experiment!r} at {key.checkpoint} has {counted(len(others), 'episode')} made with {reason}. "
        "Use another --exp, or --overwrite to make them anew."
    )


def _difference(manifest: Manifest, settings: RolloutSettings) -> str:
    """What was different when the episode was made, in words."""
    identity = settings.identity()
    options = settings.options
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
        "other environment kwargs": (
            manifest.environment.kwargs | manifest.environment.spec_kwargs,
            dict(settings.environment.kwargs) | dict(settings.environment.spec_kwargs),
        ),
    }
    return next((what for what, (before, now) in before_and_now.items() if before != now), "other settings")
