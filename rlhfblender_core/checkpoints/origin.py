"""Which environment an agent was trained in: as its settings say, else as its files and folders are named."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: An id at the start of a name, and what may follow it: ``Ant-v3_1``, ``ppo-CartPole-v1``, ``Ant-v3_10000_steps``.
_ID = re.compile(r"(?P<id>.+?-v\d{1,4})(?=$|[^A-Za-z0-9])")
#: Folders above a file that may be named after its environment: ``ppo/Ant-v3_1/checkpoints/10000.zip``.
_FOLDERS_ABOVE = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an agent comes from.

    Attributes:
        settings: the id of its environment, as its ``args.yml`` says it; None where that says nothing.
        names: ids that the names of its files and folders may mean, the likeliest first.
    """

    settings: str | None = None
    names: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """What it may be of: its settings are believed before any name."""
        return (self.settings,) if self.settings else self.names


def origin_of(settings: str | None, urls: Iterable[str | None]) -> Origin:
    """What is known about where an agent was trained.

    Args:
        settings: the id in its settings.
        urls: of its files, the model first.
    """
    names: dict[str, None] = {}
    for url in urls:
        if url is not None:
            for part in reversed(url.rstrip("/").split("/")[-1 - _FOLDERS_ABOVE :]):
                names |= dict.fromkeys(ids_in(part))
    return Origin(settings, tuple(names))


def ids_in(name: str) -> list[str]:
    """Ids of environments that a name may hold: ``ppo-Ant-v3_1`` means it, or ``Ant-v3`` behind a prefix."""
    match = _ID.match(name)
    if match is None:
        return []
    whole = match["id"]
    starts = [0, *(separator.end() for separator in re.finditer(r"[-_]", whole[: whole.rindex("-v")]))]
    return [whole[start:] for start in starts if whole[start].isalpha()]
