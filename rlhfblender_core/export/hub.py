"""Data sets on the Hugging Face Hub: an export's folder as a repository, with a card.

A single data set of ``datasets`` or LeRobot is the repository itself, as their loaders want it; others lie below it as
they lie in the export. The card has figures of each checkpoint, the first episode as a GIF, and how to load it.
``huggingface_hub`` is an extra; it knows by itself where the Hub is and who is logged in.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.dataset.gif import write_gif
from rlhfblender_core.dataset.selection import EpisodeSelection
from rlhfblender_core.environments.describe import DEFAULT_FPS
from rlhfblender_core.errors import InvalidParameterError, StorageNotUsableError, StorageUnavailableError, one_line
from rlhfblender_core.export.card import mean_and_range
from rlhfblender_core.export.index import staging_folder
from rlhfblender_core.export.request import CheckpointExport
from rlhfblender_core.export.source import CheckpointSource, complete_episodes
from rlhfblender_core.export.statistics import statistics_of
from rlhfblender_core.reading.episode import Episode
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.wording import in_markdown

_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)/?")
_CARD, _CLIP = "README.md", "episode.gif"
#: Of the GIF: frames, and pixels in a row.
_MOST_FRAMES, _WIDTH = 60, 320
#: Of a single data set of these the repository is the data set; what it may have held before and now hasn't goes.
_AT_ROOT: Mapping[str, tuple[str, ...]] = {
    "datasets": ("data/*", "meta/*", "trajectories/*"),
    "lerobot": ("data/*", "meta/*", "videos/*"),
}
#: How a data set is loaded: first what all need, then each of several, then one that is the repository.
_LOADING: Mapping[str, tuple[str, str, str]] = {
    "datasets": (
        "import datasets",
        'datasets.load_dataset("{repo}", "{name}", split="train")',
        'datasets.load_dataset("{repo}", split="train")',
    ),
    "lerobot": (
        'folder = huggingface_hub.snapshot_download("{repo}", repo_type="dataset")',
        'LeRobotDataset("local/{name}", root=f"{folder}/{place}")',
        'LeRobotDataset("{repo}")',
    ),
    "hdf5": (
        'folder = huggingface_hub.snapshot_download("{repo}", repo_type="dataset")',
        *('h5py.File(f"{folder}/{place}")',) * 2,
    ),
    "minari": (
        "# in a shell: export MINARI_DATASETS_PATH=$(hf download {repo} --repo-type dataset)",
        *('minari.load_dataset("{place}")',) * 2,
    ),
}


@dataclass(frozen=True)
class _Figures:
    """What the card says of a checkpoint."""

    report: CheckpointExport
    returns: Any
    lengths: Any


def hub_repository(url: str, to: str) -> str:
    """``<user>/<name>`` of a repository that an export can be pushed to.

    Raises:
        InvalidParameterError: the URL is none of the Hub's, the format has no card, or a package is missing.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidParameterError(
            f"--push-to takes hf://datasets/<user>/<name>, not {without_credentials(url)!r:.100}."
        )
    if to not in _LOADING:
        raise InvalidParameterError(f"--push-to goes with --to {', '.join(_LOADING)}, not with --to {to}.")
    try:
        import huggingface_hub  # noqa: F401 (whether it is there)
    except ImportError as error:
        raise InvalidParameterError(
            "--push-to needs a package that is missing. Install it: pip install 'rlhfblender-data[hf]'."
        ) from error
    return match[1]


def push_to_hub(
    url: str,
    to: str,
    reports: Sequence[CheckpointExport],
    target: DataRoot,
    root: DataRoot,
    selection: EpisodeSelection,
) -> str:
    """Pushes the exported data sets in one commit; returns where they are.

    Args:
        url: of the repository, which is made if needed: private, until its owner changes that.
        to: the format.
        reports: the checkpoints that were exported.
        target: the export.
        root: the data root.
        selection: of its episodes, those that were exported.

    Raises:
        RequestError: nobody is logged in, or the Hub refuses.
        StorageUnavailableError: the Hub can't be reached; worth another try.
    """
    repo = hub_repository(url, to)
    exported = [report for report in reports if report.made + report.existing]
    if not exported:
        raise InvalidParameterError("There is nothing to push: no episode was exported.")
    is_at_root = len(exported) == 1 and to in _AT_ROOT
    with staging_folder(target) as staging:
        folder = staging / "repository"
        for report in exported:
            _link_all(target.local_folder / report.place, folder if is_at_root else folder / report.place)
        clip = next(filter(None, (_clip(root, report, selection, folder / _CLIP) for report in exported)), None)
        figures = [_figures(root, report, selection) for report in exported]
        own = folder / _CARD
        settings = _front_matter(own.read_text(encoding="utf-8")) if is_at_root else _configs(to, exported)
        own.unlink(missing_ok=True)  # a link: what it leads to is the export's
        own.write_text(_card(repo, to, figures, settings, clip=clip, is_at_root=is_at_root), encoding="utf-8")
        gone = _AT_ROOT[to] if is_at_root else [f"{report.place}/*" for report in exported]
        return _upload(repo, folder, [*gone, _CLIP])


def _link_all(source: Path, target: Path) -> None:
    """The files of an export, as links: they are only read."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
        return
    shutil.copytree(source, target, copy_function=lambda file, link: Path(link).symlink_to(file), dirs_exist_ok=True)


def _upload(repo: str, folder: Path, gone: list[str]) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]  # of its HTTP client

    api = HfApi()
    place = f"{api.endpoint}/datasets/{repo}"
    try:
        api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Episodes by rlhfblender-data",
            delete_patterns=gone,
        )
    except (HFValidationError, LocalTokenNotFoundError) as error:
        raise StorageNotUsableError(f"{place} can't be written: {one_line(error)}") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403, 404):
            raise StorageNotUsableError(
                f"{place} can't be written: the Hub refuses ({status}). Log in with `hf auth login`, or set HF_TOKEN "
                "to a token that may write."
            ) from error
        raise StorageUnavailableError(f"{place} can't be written now: {one_line(error)}") from error
    except (OSError, ClientError) as error:
        raise StorageUnavailableError(f"{place} can't be reached: {one_line(error)}") from error
    return place


def _episodes(root: DataRoot, report: CheckpointExport, selection: EpisodeSelection) -> Iterator[Episode]:
    for episode in complete_episodes(CheckpointSource(root, report.key, selection), Counter()):
        yield Episode.from_manifest(episode.manifest, root)


def _figures(root: DataRoot, report: CheckpointExport, selection: EpisodeSelection) -> _Figures:
    facts = [(e.episode_return, e.episode_length) for e in _episodes(root, report, selection)]
    returns, lengths = (statistics_of(np.array(column)) for column in zip(*facts, strict=True))
    return _Figures(report, returns, lengths)


def _clip(root: DataRoot, report: CheckpointExport, selection: EpisodeSelection, file: Path) -> Path | None:
    """The first episode that has a video, as a GIF; None where none has."""
    episode = next((one for one in _episodes(root, report, selection) if one.has_video), None)
    if episode is None:
        return None
    stride = -(-len(episode) // _MOST_FRAMES)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_gif(episode.video_file, file, (episode.manifest.fps or DEFAULT_FPS) / stride, _WIDTH)
    return file


def _front_matter(card: str) -> str:
    """What a data set's own card tells the Hub's viewer of its files."""
    match = re.search(r"^configs:\n(?:[ -].*\n)*", card, re.MULTILINE)
    return match[0] if match else ""


def _configs(to: str, reports: Sequence[CheckpointExport]) -> str:
    if to != "datasets":
        return ""
    lines = (
        f"- config_name: {json.dumps(_name(report))}\n  data_files: {json.dumps(f'{report.place}/data/*.parquet')}\n"
        for report in reports
    )
    return "configs:\n" + "".join(lines)


def _name(report: CheckpointExport) -> str:
    return f"{report.key.experiment}-{report.key.checkpoint}"


def _card(
    repo: str, to: str, figures: Sequence[_Figures], settings: str, *, clip: Path | None, is_at_root: bool
) -> str:
    title = repo.partition("/")[2]
    rows = (
        f"| {in_markdown(each.report.key.experiment)} | {in_markdown(each.report.key.checkpoint)} | "
        f"{each.returns.count:,} | "
        f"{round(float(each.lengths.mean[()]) * each.lengths.count):,} | {mean_and_range(each.returns)} | "
        f"{mean_and_range(each.lengths)} |"
        for each in figures
    )
    first, each_of_them, alone = _LOADING[to]
    lines = [] if is_at_root and to == "lerobot" else [first.replace("{repo}", repo)]
    lines += (
        (alone if is_at_root else each_of_them)
        .replace("{repo}", repo)
        .replace("{name}", _name(each.report))
        .replace("{place}", each.report.place)
        for each in figures
    )
    tags = ("reinforcement-learning", "rlhf", "gymnasium", *(["LeRobot"] if to == "lerobot" else []))
    return "\n".join(
        [
            *("---", f"pretty_name: {json.dumps(title)}", "tags:", *(f"- {tag}" for tag in tags)),
            *(*settings.splitlines(), "---", "", f"# {in_markdown(title)}", ""),
            *(("![The first episode](episode.gif)", "") if clip else ()),
            *(
                "| experiment | checkpoint | episodes | steps | return | length |",
                "|---|---|---|---|---|---|",
                *rows,
                "",
            ),
            *("## Loading", "", "```python", *lines, "```", ""),
            "Minimum, maximum, mean and deviation of each feature are in `meta/stats.json`; in HDF5 with each array.",
            "",
        ]
    )
