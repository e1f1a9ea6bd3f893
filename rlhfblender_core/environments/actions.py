"""How many dimensions an action has, and which labels fit."""

from collections.abc import Sequence

from gymnasium import spaces

from rlhfblender_core.environments.spaces import Space
from rlhfblender_core.errors import InvalidParameterError


def action_dimensions(space: Space) -> int:
    """1 for Discrete, k for a flat Box of k numbers.

    Raises:
        InvalidParameterError: another space, whose actions have no such number.
    """
    if isinstance(space, spaces.Discrete):
        return 1
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return space.shape[0]
    raise InvalidParameterError(
        f"The action space {space!s:.80} has no plain dimensions: only Discrete and flat Box spaces have."
    )


def check_action_names(space: Space, names: Sequence[str]) -> None:
    """Checks labels of actions: one per action of a Discrete space, one per dimension of a flat Box.

    Raises:
        InvalidParameterError: another number of labels, an empty or repeated one, or another space.
    """
    dimensions = action_dimensions(space)
    count, what = (int(space.n), "actions") if isinstance(space, spaces.Discrete) else (dimensions, "dimensions")
    if len(names) != count:
        raise InvalidParameterError(
            f"The action space {space!s:.80} has {count} {what}, so it takes {count} names; got {len(names)}."
        )
    if any(not isinstance(name, str) or not name.strip() for name in names):  # a registry's JSON can hold anything
        raise InvalidParameterError("An action's name can't be empty.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidParameterError(f"Each action needs a name of its own; given twice: {', '.join(repeated)}.")
