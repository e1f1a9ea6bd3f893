"""Files that lie where episodes go and are nobody's that is known: a request that needs their places is refused."""

from collections.abc import Collection, Iterable
from shlex import quote

from rlhfblender_core.dataset.existing import Existing, find_existing
from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_folder, artifact_path, manifest_folder
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import Registry, registry_if_any
from rlhfblender_core.runs.claims import live_runs
from rlhfblender_core.runs.folders import is_any_alive
from rlhfblender_core.storage import check_no_links
from rlhfblender_core.wording import counted

#: Paths that a line names.
_MOST_NAMED = 3


def check_unknown_files(existing: Existing, wanted: Iterable[int], env_id: str, locations: Locations) -> None:
    """Makes sure that no unknown file, and no link, lies where these episodes go. Asks nobody where there is none.

    What a run leaves without a manifest is known by its claim, and what has lost its manifest by its row.

    Args:
        existing: the checkpoint's listing.
        wanted: numbers of the episodes that will be made.
        env_id: for the command that takes such files in.
        locations: data root and registry.

    Raises:
        DataNotUsableError: there are such files; they are named.
        StorageNotUsableError: there is a link.
    """
    numbers, root = set(wanted), locations.open_root()
    if numbers and root.is_local:
        key = existing.key
        folders = [manifest_folder(key), *(artifact_folder(kind, key) for kind in ArtifactKind)]
        check_no_links(root, [root.local_folder / folder for folder in folders])
    if not unknown_files(existing, numbers):
        return
    with registry_if_any(locations.database_url) as registry:
        ours = _known_numbers(existing, numbers, registry, locations)
        if ours is None:
            return  # what a run under way is about is settled when files are published
        # Listed again: another run may have committed, or removed, what was seen.
        now = find_existing(root, registry, existing.key)
    paths = unknown_files(now, numbers - ours)
    if paths:
        raise DataNotUsableError(_refusal(paths, existing.key.experiment, env_id))


def _refusal(paths: list[str], experiment: str, env_id: str) -> str:
    shown = ", ".join(paths[:_MOST_NAMED]) + (", …" if len(paths) > _MOST_NAMED else "")
    lie = "lies" if len(paths) == 1 else "lie"
    take_in = f"`python flows/import_data.py --exp {quote(experiment)} --env {quote(env_id)}` takes in"
    return (
        f"{shown} ({counted(len(paths), 'file')}) {lie} where episodes of {experiment!r} go, and no run known here has "
        f"made that. {take_in} what was laid there by hand; `python flows/verify.py --quarantine` moves it away."
    )


def unknown_files(existing: Existing, numbers: Collection[int]) -> list[str]:
    """Paths of files in the places of these episodes that no manifest names."""
    key = existing.key
    return [
        artifact_path(kind, EpisodeKey(key.experiment, key.checkpoint, number))
        for kind in ArtifactKind
        for number in sorted(existing.unnamed.get(kind, frozenset()).intersection(numbers))
    ]


def _known_numbers(
    existing: Existing, numbers: Collection[int], registry: Registry | None, locations: Locations
) -> frozenset[int] | None:
    """Episodes whose files without a manifest are ours; None where a run is under way that may be making some."""
    root, key = locations.open_root(), existing.key
    if root.is_local and is_any_alive(root):  # its registry may be another one
        return None
    if registry is None:
        return frozenset()
    if live_runs(registry, key.experiment):
        return None
    # In this order: what is claimed first is indexed in the moment in which it is released.
    claimed = registry.list_claims(key.experiment).values()
    lost = registry.find_indexed(key.experiment, key.checkpoint, numbers) - existing.committed
    return frozenset(lost).union(*(claims.get(key.checkpoint, frozenset()) for claims in claimed))
