"""Minari data sets: one per checkpoint, below a folder that Minari takes as its own (``MINARI_DATASETS_PATH``).

A data set is built aside and takes its place when it is whole. Pictures stay what they were: Minari's lossy encoding is
off. Minari is an extra; this module imports it where it is needed.
"""

import dataclasses
import itertools
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from rlhfblender_core.dataset.layout import IMPORTED, ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.selection import EVERYTHING, EpisodeSelection
from rlhfblender_core.environments import ONLY_DECLARED, EnvironmentSpec, Space, Trust, space_from_description
from rlhfblender_core.environments.registration import entry_point_text, find_registration
from rlhfblender_core.errors import DataNotUsableError, EnvironmentNotUsableError, InvalidParameterError
from rlhfblender_core.export.index import staging_folder
from rlhfblender_core.export.minari.episodes import minari_fields, minari_space
from rlhfblender_core.export.request import CheckpointExport, ExperimentSource
from rlhfblender_core.export.source import CheckpointSource, SourceEpisode, complete_episodes
from rlhfblender_core.names import path_segment
from rlhfblender_core.planning.environment import spec_of
from rlhfblender_core.reading.episode import Episode, observed_columns
from rlhfblender_core.registry import CheckpointRecord
from rlhfblender_core.storage import DataRoot, check_no_links, fetch_file, make_folder
from rlhfblender_core.untrusted.json_values import parse_json

#: Part of what decides whether a data set is up to date; raised when the same episodes would be another.
_RECIPE = 3
_NAMESPACE_FILE = "namespace_metadata.json"
#: Of an imported episode.
NO_FINAL = "was imported without its last observation, which Minari needs"
#: Our own entries in a data set's metadata.
_SOURCE, _KEY = "rlhfblender_source", "rlhfblender_checkpoint"
#: Our own file beside a data set's: of each episode its number and its manifest's sha256, ascending.
_EPISODES, _ENTRY = "rlhfblender_episodes", struct.Struct("<q32s")
#: Episodes whose metadata is written at once.
_AT_ONCE = 1000


@dataclass(frozen=True)
class MinariCheckpoint:
    """A checkpoint as a Minari data set.

    Attributes:
        dataset_id: what ``minari.load_dataset`` takes: ``<environment>/<experiment>/<checkpoint>-v0``.
        source: its experiment.
        checkpoint: as registered.
        env_spec: Gymnasium's spec of the environment, as JSON; None where the environment isn't installed here.
    """

    dataset_id: str
    source: ExperimentSource
    checkpoint: CheckpointRecord
    env_spec: str | None

    @property
    def key(self) -> CheckpointKey:
        """Experiment and checkpoint, ours."""
        return CheckpointKey(self.checkpoint.experiment, self.checkpoint.label)


def plan_minari_export(
    sources: Sequence[ExperimentSource], trust: Trust = ONLY_DECLARED
) -> tuple[MinariCheckpoint, ...]:
    """One data set per checkpoint. Environments' packages are imported: not to be done in several threads at once.

    Args:
        sources: the experiments.
        trust: what the registry may name to make environments with; of others, no spec is written.

    Raises:
        InvalidParameterError: Minari isn't installed, or two checkpoints' data sets would have the same id.
    """
    _import_minari()
    planned: dict[str, MinariCheckpoint] = {}
    for source in sources:
        env_spec = _env_spec(source, trust)
        for checkpoint in source.checkpoints:
            names = (path_segment(source.record.env_id), source.record.name, f"{checkpoint.label}-v0")
            dataset_id = "/".join(re.sub(r"[^-\w]", "-", name) for name in names)
            if dataset_id in planned:
                other = planned[dataset_id].key.experiment
                raise InvalidParameterError(
                    f"Experiments {other!r} and {source.record.name!r} would be the same Minari data set, "
                    f"{dataset_id}. Export them to different folders."
                )
            planned[dataset_id] = MinariCheckpoint(dataset_id, source, checkpoint, env_spec)
    return tuple(planned.values())


def _import_minari() -> Any:
    try:
        import h5py  # noqa: F401 (Minari's files)
        import minari
    except ImportError as error:
        raise InvalidParameterError(
            "--to minari needs a package that is missing. Install it: pip install 'rlhfblender-data[minari]'."
        ) from error
    return minari


def export_minari_checkpoint(
    root: DataRoot, target: DataRoot, checkpoint: MinariCheckpoint, selection: EpisodeSelection = EVERYTHING
) -> CheckpointExport:
    """Brings a checkpoint's data set up to date.

    Args:
        root: the data root.
        target: folder of the data sets, locked by the caller.
        checkpoint: which one.
        selection: the episodes that it has.

    Raises:
        DataNotUsableError: the environment is registered without spaces, or the data set there isn't ours.
    """
    source = CheckpointSource(root, checkpoint.key, selection)
    before = _find_before(target, checkpoint)
    left_out: Counter[str] = Counter()
    count, existing = _compare(_episodes(source, left_out), _read_entries(before))
    if count and (before is None or not count == existing == before.stat().st_size / _ENTRY.size):
        _build(target, checkpoint, source)
    return CheckpointExport(
        checkpoint.key, count - existing, existing, left_out=dict(left_out), place=checkpoint.dataset_id
    )


def _episodes(source: CheckpointSource, left_out: "Counter[str]") -> Iterator[SourceEpisode]:
    """The episodes that Minari can hold: whole, and with their last observation, which some imported ones lack."""
    for episode in complete_episodes(source, left_out):
        # In the bytes first: to read a manifest in full takes 20 times as long.
        is_imported = IMPORTED.encode() in episode.content and episode.manifest.policy.kind == IMPORTED
        if not is_imported or _has_final(source.root, episode):
            yield episode
        else:
            left_out[NO_FINAL] += 1


def _has_final(root: DataRoot, episode: SourceEpisode) -> bool:
    with Episode.from_manifest(episode.manifest, root).open() as arrays:
        return observed_columns(arrays)[1] is not None


def _find_before(target: DataRoot, checkpoint: MinariCheckpoint) -> Path | None:
    """What the data set that is there was made from; None if there is none, or it has to be built again."""
    file = target.local_folder / checkpoint.dataset_id / "data" / "metadata.json"
    try:
        metadata = parse_json(file.read_bytes())
        experiment, label = map(str, metadata[_KEY])
        is_current = dict(metadata[_SOURCE]) == {"recipe": _RECIPE}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataNotUsableError(f"{file.parent} isn't an export of ours. Choose another folder.") from error
    if (experiment, label) != (checkpoint.key.experiment, checkpoint.key.checkpoint):
        raise DataNotUsableError(f"{file.parent} is the export of {experiment} at {label}. Choose another folder.")
    is_whole = all(file.with_name(name).is_file() for name in ("main_data.hdf5", _EPISODES))
    return file.with_name(_EPISODES) if is_current and is_whole else None


def _read_entries(file: Path | None) -> Iterator[tuple[int, bytes]]:
    """Number and digest of each episode, one after the other: there may be a million."""
    if file is not None:
        with file.open("rb") as stream:
            while len(entry := stream.read(_ENTRY.size)) == _ENTRY.size:
                number, digest = _ENTRY.unpack(entry)
                yield number, digest


def _compare(episodes: Iterable[SourceEpisode], entries: Iterator[tuple[int, bytes]]) -> tuple[int, int]:
    """How many episodes there are, and how many of them are among the entries, both ascending."""
    count = existing = 0
    entry = next(entries, None)
    for episode in episodes:
        while entry and entry[0] < episode.number:
            entry = next(entries, None)
        count += 1
        existing += entry == (episode.number, bytes.fromhex(episode.sha256))
    return count, existing


def _build(target: DataRoot, checkpoint: MinariCheckpoint, source: CheckpointSource) -> None:
    place = target.local_folder / checkpoint.dataset_id
    check_no_links(target, [place])
    with staging_folder(target) as staging:
        new, old = staging / "new", staging / "old"
        new.mkdir()
        _write(new / "data", checkpoint, source)
        _make_namespaces(target, checkpoint.dataset_id, staging)
        if place.exists():
            place.rename(old)
        new.rename(place)


def _write(folder: Path, checkpoint: MinariCheckpoint, source: CheckpointSource) -> None:
    minari = _import_minari()
    from gymnasium.envs.registration import EnvSpec
    from minari.dataset.minari_storage import MinariStorage

    environment = checkpoint.source.environment
    observation_space, action_space = checkpoint.source.spaces
    if not observation_space or not action_space:
        raise DataNotUsableError(
            f"The spaces of {environment.env_id} aren't registered, which Minari needs. "
            f"Register them where it is installed: `python flows/register.py --env {quote(environment.env_id)}`."
        )
    space = space_from_description(observation_space)
    storage = MinariStorage.new(
        folder,
        observation_space=minari_space(space),
        action_space=space_from_description(action_space),
        env_spec=None if checkpoint.env_spec is None else EnvSpec.from_json(checkpoint.env_spec),
        jpeg_encoding=False,
    )
    storage.update_metadata(
        {
            "dataset_id": checkpoint.dataset_id,
            "algorithm_name": checkpoint.checkpoint.algorithm or "random",
            "description": f"Experiment {checkpoint.key.experiment}, checkpoint {checkpoint.key.checkpoint}.",
            "minari_version": minari.__version__,
            _KEY: [checkpoint.key.experiment, checkpoint.key.checkpoint],
        }
    )
    storage.update_episodes(_buffers(source, space, folder.parent.parent))
    with (folder / _EPISODES).open("wb") as entries:
        metadata = (_episode_metadata(episode, entries) for episode in _episodes(source, Counter()))
        written = 0
        # HDF5 holds what it changed until the file is closed: of all at once 8 kB each.
        while some := list(itertools.islice(metadata, _AT_ONCE)):
            storage.update_episode_metadata(some, range(written, written + len(some)))
            written += len(some)
    storage.update_metadata({_SOURCE: {"recipe": _RECIPE}})


def _buffers(source: CheckpointSource, space: Space, scratch: Path) -> Iterator[Any]:
    """One episode after another: memory holds one at a time."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    root = source.root
    for number, episode in enumerate(_episodes(source, Counter())):
        manifest = episode.manifest
        path = manifest.artifacts[ArtifactKind.EPISODES].path
        try:
            file = fetch_file(root, path, scratch)
            fields = minari_fields(file, space)
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise DataNotUsableError(
                f"{root.display_url(path)} can't be read. Run `python flows/verify.py --repair`."
            ) from error
        yield EpisodeBuffer(id=number, seed=manifest.seed, **fields)
        if not root.is_local:
            file.unlink()


def _episode_metadata(episode: SourceEpisode, entries: BinaryIO) -> dict[str, Any]:
    """What Minari keeps of an episode; its digest is noted down."""
    manifest = episode.manifest
    entries.write(_ENTRY.pack(episode.number, bytes.fromhex(episode.sha256)))
    return {"rlhfblender_episode": manifest.episode, "rlhfblender_request": manifest.request_digest}


def _env_spec(source: ExperimentSource, trust: Trust) -> str | None:
    """Gymnasium's spec of the environment with the registered keyword arguments."""
    spec: EnvironmentSpec = spec_of(source.environment, source.record.env_kwargs)
    try:
        trust.admit(spec)
        registration = find_registration(spec)
    except EnvironmentNotUsableError:
        return None
    changes: dict[str, Any] = {
        **spec.spec_kwargs,
        "kwargs": {**registration.kwargs, **spec.kwargs},
        "entry_point": entry_point_text(registration.entry_point),
        "vector_entry_point": None,  # a class, for some, which has no JSON
    }
    return dataclasses.replace(registration, **changes).to_json()


def _make_namespaces(target: DataRoot, dataset_id: str, staging: Path) -> None:
    """Minari's marker in each folder above a data set; other checkpoints' exports may make the same ones meanwhile."""
    folder = target.local_folder
    for name in dataset_id.split("/")[:-1]:
        folder /= name
        make_folder(folder)
        if not (folder / _NAMESPACE_FILE).exists():
            marker = staging / _NAMESPACE_FILE
            marker.write_text("{}")
            marker.replace(folder / _NAMESPACE_FILE)
