"""Whether a checkpoint and an environment belong together: spaces, and ids that have successors. Without torch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlhfblender_core.checkpoints.contents import ModelContents, read_contents
from rlhfblender_core.checkpoints.fetch import CheckpointRef
from rlhfblender_core.checkpoints.origin import origin_of
from rlhfblender_core.checkpoints.successors import old_id_hint
from rlhfblender_core.errors import SpacesDifferError
from rlhfblender_core.policies.observations import ObservationPipeline
from rlhfblender_core.untrusted.spaces import SpaceInfo, channels_first, difference, space_info
from rlhfblender_core.untrusted.vecnormalize import read_statistics, trusted_statistics

#: Observations that may be stacked.
_MOST_STACKED = 64


def check_spaces(
    ref: CheckpointRef,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    environment_id: str | None = None,
    trust: bool = False,
) -> tuple[str, ...]:
    """Refuses an environment that the checkpoint's policy can't see or act in.

    Shape, dtype and number of actions are compared as the policy meets them: after VecNormalize, frame stack and image
    transposition.

    Args:
        ref: the checkpoint.
        observation_space: of the environment with the agent's wrappers around it.
        action_space: likewise.
        environment_id: for the hint about successors.
        trust: as for :func:`~rlhfblender_core.checkpoints.fetch.fetch_checkpoint`.

    Returns:
        What a person should know about how its actions reach the environment.

    Raises:
        SpacesDifferError: one line with what was trained on and what was found.
    """
    contents = read_contents(Path(ref.path), algorithm=ref.algorithm, trust=trust)
    hint = None if environment_id is None else successor_hint(ref, environment_id)
    try:
        seen = policy_observations(ref, contents, observation_space, trust=trust).space
        check_policy_spaces(contents, seen, action_space, hint)
    except SpacesDifferError:
        if stack := _stack_hint(ref, contents, observation_space, action_space, trust=trust):
            check_policy_spaces(contents, observation_space, action_space, stack)  # raises, and says what to give
        raise
    return tuple(_action_notes(contents, action_space))


def policy_observations(
    ref: CheckpointRef, contents: ModelContents, observation_space: spaces.Space[Any], *, trust: bool = False
) -> ObservationPipeline:
    """What makes the policy's observations of an environment's.

    Args:
        ref: the checkpoint.
        contents: what is in it.
        observation_space: of the environment with the agent's wrappers around it.
        trust: as for :func:`~rlhfblender_core.checkpoints.fetch.fetch_checkpoint`.

    Raises:
        SpacesDifferError: the checkpoint's statistics or frame stack don't go with the space.
        CheckpointNotUsableError: its statistics can't be read.
    """
    statistics = None
    if ref.vecnormalize is not None:
        read = trusted_statistics if trust else read_statistics
        statistics = read(Path(ref.vecnormalize.path))
    return ObservationPipeline(
        observation_space,
        statistics,
        ref.settings.frame_stack,
        contents.observation_space,
        joins_goal=contents.joins_goal,
    )


def check_policy_spaces(
    contents: ModelContents,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    hint: str | None = None,
) -> None:
    """Like :func:`check_spaces`, for the spaces as the policy itself will have them.

    Args:
        contents: of the checkpoint.
        observation_space: as :func:`policy_observations` makes them.
        action_space: the environment's.
        hint: what to do about spaces that differ, if something is known.

    Raises:
        SpacesDifferError: likewise.
    """
    trained, acted = contents.action_space, space_info(action_space)
    if trained is not None and trained.starts and acted.starts:
        raise SpacesDifferError(_message(contents, *_out_of_step(trained, acted)))
    problem = _problem(contents, space_info(observation_space), acted)
    if problem is not None:
        raise SpacesDifferError(_message(contents, problem, hint))


def other_bounds(contents: ModelContents, action_space: spaces.Space[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The bounds of the actions that the policy was trained with, where they aren't those of the environment."""
    bounds = contents.action_bounds
    if bounds is None or not isinstance(action_space, spaces.Box) or bounds[0].shape != action_space.shape:
        return None
    own = (action_space.low, action_space.high)
    is_same = all(np.allclose(one, other) for one, other in zip(bounds, own, strict=True))
    return None if is_same else bounds


def _action_notes(contents: ModelContents, action_space: spaces.Space[Any]) -> Iterator[str]:
    if not isinstance(action_space, spaces.Box):
        return
    if (bounds := other_bounds(contents, action_space)) is not None:
        trained = spaces.Box(*bounds, dtype=bounds[0].dtype.type)
        yield f"The agent acts in {trained}, as it was trained, the environment's actions are {action_space}."
    if action_space.dtype.kind != "f":
        yield f"The agent gives fractions to an environment with whole actions ({action_space}), as in its training."


def _out_of_step(trained: SpaceInfo, acted: SpaceInfo) -> tuple[str, str]:
    """Trained without a shift in a space that doesn't start at 0: some of its actions aren't in the space."""
    return (
        f"actions {trained}, and Stable-Baselines3 counts actions from 0 all the same: not all of them are in the "
        f"environment's {acted}",
        "Use an environment whose actions start at 0, or train behind a wrapper that shifts them",
    )


def successor_hint(ref: CheckpointRef, environment_id: str) -> str | None:
    """What to know about using a model of an old environment with this one; None where there is nothing to know."""
    return old_id_hint(ref.origin if ref.origin.ids else origin_of(None, (ref.url,)), environment_id)


def _stack_hint(
    ref: CheckpointRef,
    contents: ModelContents,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    trust: bool,
) -> str | None:
    """What a policy that sees several observations at once needs, if that is all that it needs."""
    if ref.settings.frame_stack is not None:
        return None
    for number in range(2, _MOST_STACKED + 1):
        stacking = replace(ref, settings=replace(ref.settings, frame_stack=number))
        try:
            seen = policy_observations(stacking, contents, observation_space, trust=trust).space
        except SpacesDifferError:
            continue
        if _problem(contents, space_info(seen), space_info(action_space)) is None:
            return f"It saw {number} observations stacked: give --env-kwargs frame_stack:{number}"
    return None


def _problem(contents: ModelContents, observed: SpaceInfo, acted: SpaceInfo) -> str | None:
    trained = contents.observation_space
    if trained is not None and not _sees(trained, observed):
        return f"observations {difference(trained, observed)}"
    acts = contents.action_space
    if acts is not None and not acts.counted_from_zero().agrees_with(acted.counted_from_zero()):
        return f"actions {difference(acts, acted)}"
    return None


def _sees(trained: SpaceInfo, observed: SpaceInfo) -> bool:
    """Saved image spaces have their channels first or last, depending on the version that saved them."""
    return trained.agrees_with(observed) or channels_first(trained).agrees_with(channels_first(observed))


def _message(contents: ModelContents, problem: str, hint: str | None) -> str:
    advice = (
        hint or "Use the environment it was trained in, with its wrappers (--env-kwargs env_wrapper:… frame_stack:…)"
    )
    return f"Checkpoint {str(contents.archive.path)!r} was trained on {problem}. {advice}."
