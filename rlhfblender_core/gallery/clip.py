"""A clip to show around, as GIF or MP4: of one episode, or of the same one over the whole training.

Above each picture stands which checkpoint it is, and the episode's return.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from rlhfblender_core.dataset.gif import write_gif
from rlhfblender_core.dataset.layout import EpisodeKey
from rlhfblender_core.dataset.video import Frame, VideoError, VideoWriter
from rlhfblender_core.errors import InvalidParameterError, StorageNotUsableError
from rlhfblender_core.gallery.captions import captioned
from rlhfblender_core.gallery.collect import episode_numbers, find_experiments
from rlhfblender_core.locations import Locations
from rlhfblender_core.reading.data_set import DataSet, find_episodes
from rlhfblender_core.reading.episode import Episode
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.storage import DataRoot, full_disk_errors
from rlhfblender_core.wording import counted

#: Checkpoints of a clip over the whole training, evenly chosen: more would pass too fast to be seen.
_MOST_CHECKPOINTS = 30
#: Seconds of a clip whose steps aren't given.
_MOST_SECONDS = 40.0
#: Seconds for which the last picture of a checkpoint stays, so that one sees how it ended.
_HOLD_SECONDS = 0.5
#: A GIF's pictures last hundredths of a second, and viewers slow down those of less than three. Wider ones get huge.
_GIF_FPS, _GIF_WIDTH = 33.0, 480
_STEPS = re.compile(r"(\d{1,15})-(\d{1,15})", re.ASCII)


@dataclass(frozen=True)
class ClipRequest:
    """What a clip is asked to show.

    Attributes:
        file: where it goes, ``….gif`` or ``….mp4``; one that is there is replaced.
        experiments: names; the one, or none if there is but one.
        checkpoints: labels; none for all of them, or thirty evenly.
        episode: its number; None for the first that there is of all of them.
        steps: first and last step, ``100-250``; None for as many as fit into the clip.
    """

    file: str
    experiments: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    episode: int | None = None
    steps: str | None = None


def write_clip(request: ClipRequest, locations: Locations) -> str:
    """Writes the clip; returns what was written, in words.

    Raises:
        InvalidParameterError, DataNotUsableError: see :func:`find_parts`.
        StorageNotUsableError: it can't be written.
    """
    target = Path(request.file).absolute()
    episodes = find_parts(request, locations)
    first, last = _steps(request)
    fps = episodes[0].manifest.fps or 1.0
    most = last - first + 1 if last is not None else max(1, int(_MOST_SECONDS * fps / len(episodes)))
    with open_scratch() as folder:
        video = folder / "clip.mp4"
        try:
            with full_disk_errors(folder):
                _encode(video, _pictures(episodes, first, most, fps), fps)
                made = video
                if target.suffix.lower() == ".gif":
                    made = video.with_suffix(".gif")
                    write_gif(video, made, min(fps, _GIF_FPS), _GIF_WIDTH)
            _place(made, target)
        except (VideoError, OSError) as error:
            raise StorageNotUsableError(f"The clip {target} can't be written: {error}") from error
    return _summary(request, episodes, first, most)


def find_parts(request: ClipRequest, locations: Locations) -> list[Episode]:
    """The episodes that the clip shows one after another, in the order of training.

    Raises:
        InvalidParameterError: no such file can be written, or there is no such episode.
        DataNotUsableError: there are no episodes, or none with a video.
    """
    _check_file(request.file)
    first, _ = _steps(request)
    root = locations.open_root()
    names = find_experiments(root, request.experiments)
    if len(names) > 1:
        raise InvalidParameterError(f"A clip shows one experiment. Name it with --exp: {', '.join(names[:8])}.")
    keys = _with_number(root, find_episodes(root, names[0]), request)
    found = [Episode(key, root) for key in _spread(keys)]
    shown = [episode for episode in found if episode.has_video and episode.episode_length > first]
    if not shown or (request.checkpoints and len(shown) < len(found)):
        lacking = next(episode for episode in found if episode not in shown)
        why = f"has no step {first}" if lacking.has_video else "was made without a video"
        raise InvalidParameterError(f"Episode {lacking.id} {why}. Choose another with --episode.")
    return shown


def _check_file(name: str) -> None:
    file = Path(name)
    if file.suffix.lower() not in (".gif", ".mp4") or "://" in name:
        raise InvalidParameterError(f"--clip {name}: name a file on this machine that ends in .gif or .mp4.")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise InvalidParameterError(f"--clip {file}: it is a folder, or there is no folder for it.")


def _steps(request: ClipRequest) -> tuple[int, int | None]:
    """The first and the last step; None for as many as fit."""
    if request.steps is None:
        return 0, None
    match = _STEPS.fullmatch(request.steps)
    if match is None or int(match[1]) > int(match[2]):
        raise InvalidParameterError(f"--steps {request.steps[:40]}: give the first and the last one, e.g. 100-250.")
    return int(match[1]), int(match[2])


def _with_number(root: DataRoot, data: DataSet, request: ClipRequest) -> list[EpisodeKey]:
    """The episodes of one number; of the checkpoints that were named, all of which have it, or of those that do."""
    for label in request.checkpoints:
        data.checkpoint(label)  # which says what there is
    wanted = [key for key in data.keys if not request.checkpoints or key.checkpoint in request.checkpoints]
    numbers = {key: episode_numbers(root, key) for key in wanted}
    common = [set(there.tolist()) for there in numbers.values() if there.size]
    number = min(set.intersection(*common) or set.union(*common)) if request.episode is None else request.episode
    lacking = [key for key, there in numbers.items() if number not in there]
    if lacking and (request.checkpoints or len(lacking) == len(wanted)):
        raise InvalidParameterError(
            f"{lacking[0].experiment} at {lacking[0].checkpoint} has no episode {number}. Choose one with --episode."
        )
    return [EpisodeKey(key.experiment, key.checkpoint, number) for key in wanted if key not in lacking]


def _spread(keys: Sequence[EpisodeKey]) -> list[EpisodeKey]:
    """At most thirty, evenly, with the first and the last."""
    places = np.linspace(0, len(keys) - 1, min(len(keys), _MOST_CHECKPOINTS)).round().astype(int)
    return [keys[place] for place in places.tolist()]


def _pictures(episodes: Sequence[Episode], first: int, most: int, fps: float) -> Iterator[Frame]:
    """The pictures of the clip, all of the same size, (height, width, 3) uint8 RGB."""
    hold = round(_HOLD_SECONDS * fps) if len(episodes) > 1 else 0
    size: tuple[int, int] | None = None
    for episode in episodes:
        length = min(episode.episode_length - first, most)
        frames = captioned(episode, islice(episode.frames(), first, first + length), length, size)
        for picture in frames:
            size = size or picture.shape[:2]
            yield picture
        yield from (picture for _ in range(hold))


def _encode(video: Path, pictures: Iterator[Frame], fps: float) -> None:
    writer: VideoWriter | None = None
    for picture in pictures:
        if writer is None:
            writer = VideoWriter(video, picture.shape[0], picture.shape[1], fps)
        writer.write(picture)
    assert writer is not None  # noqa: S101 (every part has a step, and so a picture)
    writer.close()


def _place(made: Path, target: Path) -> None:
    """Moves the file there, complete or not at all."""
    part = target.with_name(f".{target.name}.part")
    with full_disk_errors(target.parent):
        try:
            shutil.copyfile(made, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _summary(request: ClipRequest, episodes: Sequence[Episode], first: int, most: int) -> str:
    longest = max(episode.episode_length for episode in episodes)
    last = min(first + most, longest) - 1
    part = f", steps {first:,} to {last:,} of {longest:,}" if (first, last) != (0, longest - 1) else ""
    what = f"episode {episodes[0].number} of {episodes[0].experiment} at {counted(len(episodes), 'checkpoint')}"
    return f"{request.file}: {what}{part}"
