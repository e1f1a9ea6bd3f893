"""What a run tells the other ones: with which settings it makes episodes, and which it has in hand just now.

Advice, never a lock: a run that doesn't see another's notice makes the same episodes again, with the same bytes. Where
notices lie and whose are read is in :mod:`rlhfblender_core.runs.folders` and :mod:`rlhfblender_core.runs.sharing`.
"""

import threading
from collections.abc import Callable, Iterable, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError


class Notice(BaseModel):
    """One run's notice.

    Attributes:
        making: the request's digest by checkpoint.
        in_hand: numbers of episodes by checkpoint.
    """

    model_config = ConfigDict(frozen=True)

    making: dict[str, str] = {}
    in_hand: dict[str, tuple[int, ...]] = {}


def parse_notice(content: bytes) -> Notice:
    """What the bytes say; nothing where they make no sense."""
    try:
        return Notice.model_validate_json(content)
    except ValidationError:
        return Notice()


class OwnNotice:
    """The notice of a run of this process; told anew whenever it changes, by any thread.

    Args:
        tell: writes it where other runs look.
    """

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()  # also for telling: an older notice mustn't arrive after a newer one
        self._making: dict[str, str] = {}
        self._in_hand: dict[str, set[int]] = {}
        self._is_over = False

    def end(self) -> None:
        """Tells nothing from now on: the run is over, and where it told it is about to be removed."""
        with self._lock:
            self._is_over = True

    def make(self, digests: Mapping[str, str]) -> None:
        """Tells that episodes are made of these requests, by checkpoint."""
        with self._lock:
            self._making.update(digests)
            self._say()

    def take(self, checkpoint: str, episodes: Iterable[int]) -> None:
        """Tells that this run has the episodes in hand."""
        with self._lock:
            self._in_hand.setdefault(checkpoint, set()).update(episodes)
            self._say()

    def drop(self, checkpoint: str, episodes: Iterable[int]) -> None:
        """Tells that it hasn't any more."""
        with self._lock:
            self._in_hand[checkpoint].difference_update(episodes)
            self._say()

    def repeat(self) -> None:
        """Tells it again."""
        with self._lock:
            self._say()

    def _say(self) -> None:
        if not self._is_over:
            self._tell(self._content())

    def _content(self) -> bytes:
        """Empty for a run that has nothing to say: others needn't read that."""
        in_hand = {checkpoint: tuple(sorted(numbers)) for checkpoint, numbers in self._in_hand.items() if numbers}
        notice = Notice(making=self._making, in_hand=in_hand)
        return b"" if notice == Notice() else notice.model_dump_json().encode()
