"""Whether a checkpoint and an environment belong together: spaces, and ids that have successors. Without torch."""

from pathlib import Path
from typing import Any

from gymnasium import spaces

from rlhfblender_core.checkpoints.contents import ModelContents, read_contents
from rlhfblender_core.checkpoints.fetch import CheckpointRef
from rlhfblender_core.checkpoints.origin import origin_of
from rlhfblender_core.checkpoints.successors import old_id_hint
from rlhfblender_core.errors import SpacesDifferError
from rlhfblender_core.untrusted.spaces import SpaceInfo, channels_first, difference, space_info, stacked
from rlhfblender_core.wrappers.preview import wrapped_spaces

#: Observations that may be stacked.
_MOST_STACKED = 64


def check_spaces(
    ref: CheckpointRef,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    environment_id: str | None = None,
    trust: bool = False,
) -> None:
    """Refuses an environment that the checkpoint's policy can't see or act in.

    Shape, dtype and number of actions are compared, after the agent's wrappers, frame stack and image transposition.

    Args:
        ref: the checkpoint.
        observation_space: of the environment, without the agent's wrappers or with them.
        action_space: likewise.
        environment_id: for the hint about successors.
        trust: as for :func:`~rlhfblender_core.checkpoints.fetch.fetch_checkpoint`.

    Raises:
        SpacesDifferError: one line with what was trained on and what was found.
    """
    contents = read_contents(Path(ref.path), algorithm=ref.algorithm, trust=trust)
    candidates = [(observation_space, action_space)]
    if ref.settings.wrappers:
        wrapped = wrapped_spaces(observation_space, action_space, ref.settings.wrappers, trust=trust)
        candidates.insert(0, wrapped)
    problems = []
    for observed, acted in candidates:
        found = stacked(space_info(observed), ref.settings.frame_stack)
        problem = _problem(contents, found, space_info(acted))
        if problem is None:
            return
        problems.append(problem)
    hint = None if environment_id is None else successor_hint(ref, environment_id)
    if ref.settings.frame_stack is None:
        spaces_seen = [(space_info(observed), space_info(acted)) for observed, acted in candidates]
        stacks = [_stack_hint(contents, observed, acted) for observed, acted in spaces_seen]
        hint = next((text for text in stacks if text), hint)
    raise SpacesDifferError(_message(contents, problems[0], hint))


def check_policy_spaces(
    contents: ModelContents, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Like :func:`check_spaces`, for the spaces as the policy itself will have them.

    Raises:
        SpacesDifferError: likewise.
    """
    problem = _problem(contents, space_info(observation_space), space_info(action_space))
    if problem is not None:
        raise SpacesDifferError(_message(contents, problem, None))


def successor_hint(ref: CheckpointRef, environment_id: str) -> str | None:
    """What to know about using a model of an old environment with this one; None where there is nothing to know."""
    return old_id_hint(ref.origin if ref.origin.ids else origin_of(None, (ref.url,)), environment_id)


def _stack_hint(contents: ModelContents, observed: SpaceInfo, acted: SpaceInfo) -> str | None:
    """What a policy that sees several observations at once needs, if that is all that it needs."""
    for number in range(2, _MOST_STACKED + 1):
        if _problem(contents, stacked(observed, number), acted) is None:
            return f"It saw {number} observations stacked: give --env-kwargs frame_stack:{number}"
    return None


def _problem(contents: ModelContents, observed: SpaceInfo, acted: SpaceInfo) -> str | None:
    trained = contents.observation_space
    if trained is not None and not _sees(trained, observed):
        return f"observations {difference(trained, observed)}"
    if contents.action_space is not None and not contents.action_space.agrees_with(acted):
        return f"actions {difference(contents.action_space, acted)}"
    return None


def _sees(trained: SpaceInfo, observed: SpaceInfo) -> bool:
    """Saved image spaces have their channels first or last, depending on the version that saved them."""
    return trained.agrees_with(observed) or channels_first(trained).agrees_with(channels_first(observed))


def _message(contents: ModelContents, problem: str, hint: str | None) -> str:
    advice = (
        hint or "Use the environment it was trained in, with its wrappers (--env-kwargs env_wrapper:… frame_stack:…)"
    )
    return f"Checkpoint {str(contents.archive.path)!r} was trained on {problem}. {advice}."
