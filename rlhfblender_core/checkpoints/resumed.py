"""Where the training of a checkpoint went on after an interruption, as ``training.json`` beside it says.

The file is :mod:`rlhfblender_core.train`'s, or anybody's: what isn't understood says nothing.
"""

from dataclasses import dataclass
from typing import Any

from rlhfblender_core.untrusted.json_values import DamagedJsonError, parse_json

#: Name of the file, in the model's own folder.
TRAINING_RECORD = "training.json"
MAX_RECORD_BYTES = 4 * 2**20
_MOST, _LONGEST = 100, 200


@dataclass(frozen=True, slots=True)
class Resumption:
    """A training that went on.

    Attributes:
        step: of the checkpoint that it went on from.
        not_bit_equal: what isn't as it would have been without the interruption.
    """

    step: int
    not_bit_equal: tuple[str, ...]


def resumptions_before(step: int | None, content: bytes) -> tuple[Resumption, ...]:
    """Those that a checkpoint of this step has gone through, the last hundred at most.

    Args:
        step: of the checkpoint; None where unknown, then all count.
        content: of the file.
    """
    try:
        found = [_resumption(entry) for entry in parse_json(content, MAX_RECORD_BYTES)["resumed_at"]]
    except (DamagedJsonError, TypeError, KeyError, ValueError, OverflowError):
        return ()
    return tuple(each for each in found if step is None or each.step < step)[-_MOST:]


def _resumption(entry: Any) -> Resumption:
    reasons = [str(reason)[:_LONGEST] for reason in list(entry["not_bit_equal"])[:_MOST]]
    return Resumption(int(entry["step"]), tuple(reasons))
