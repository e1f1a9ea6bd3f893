"""Videos and thumbnails of a source: checked, and converted where they aren't what this data set has."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from rlhfblender_core.dataset.thumbnails import write_thumbnail
from rlhfblender_core.dataset.video import (
    READING,
    Frame,
    VideoError,
    VideoWriter,
    ffmpeg_program,
    frame_times,
    read_frames,
)
from rlhfblender_core.errors import DataNotUsableError, one_line
from rlhfblender_core.import_data.arrays import Members
from rlhfblender_core.import_data.columns import RENDERS
from rlhfblender_core.untrusted.limits import MAX_PICTURE_PIXELS
from rlhfblender_core.untrusted.pictures import PHOTOS, open_picture

#: At the start of a line: a title or a name in the file, which ffmpeg shows as well, may say the same.
_STREAM = re.compile(
    r"\s*Stream #0:\d+\S*.*?: Video: (?P<codec>\w+).*?, (?P<pixels>\w+).*?, (?P<width>\d{1,5})x(?P<height>\d{1,5})"
)
_RATE = re.compile(r"(\d+(?:\.\d+)?) fps")
_PROBE_TIMEOUT = 60.0
#: Pictures per second that RLHF-Blender's server sends to a person who demonstrates.
_DEMONSTRATION_FPS = 15.0
#: Codecs of pictures are tried too, as ffmpeg reads any stream; these are the containers' first bytes.
_MP4 = b"ftyp"


@dataclass(frozen=True)
class VideoFacts:
    """What a video is.

    Attributes:
        is_plain: H.264, yuv420p, even sides: what this data set has.
        height, width: in pixels.
        fps: frames per second.
    """

    is_plain: bool
    height: int
    width: int
    fps: float


def probe_video(file: Path, shown: str) -> VideoFacts:
    """What the file says of its first video stream.

    Raises:
        DataNotUsableError: it is no MP4 file, or has no video.
    """
    with file.open("rb") as stream:
        # ffmpeg goes by the content: a playlist that calls itself .mp4 could have it open other files.
        if stream.read(8)[4:] != _MP4:
            raise DataNotUsableError(f"{shown}: is no MP4 file")
    command = [ffmpeg_program(), "-hide_banner", "-nostdin", *READING, "-i", str(file)]
    try:
        result = subprocess.run(command, capture_output=True, check=False, timeout=_PROBE_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise DataNotUsableError(f"{shown}: ffmpeg needs more than {_PROBE_TIMEOUT:.0f} s to open it") from error
    for line in result.stderr.decode(errors="replace").splitlines():
        match, rate = _STREAM.match(line), _RATE.search(line)
        if match and rate:
            width, height = int(match["width"]), int(match["height"])
            is_plain = match["codec"] == "h264" and match["pixels"] == "yuv420p" and not (width % 2 or height % 2)
            return VideoFacts(is_plain, height, width, float(rate[1]))
    raise DataNotUsableError(f"{shown}: has no video stream that can be read")


def convert_video(file: Path, target: Path, length: int, shown: str) -> VideoFacts:
    """Checks that the video has as many frames as the episode has steps, and writes it as it is, or encoded anew.

    Raises:
        DataNotUsableError: it doesn't decode, or has another number of frames.
    """
    facts = probe_video(file, shown)
    try:
        times = frame_times(file, length + 1)
    except DataNotUsableError as error:
        raise DataNotUsableError(f"{shown}: {one_line(error)}") from error
    if len(times) != length:
        raise DataNotUsableError(f"{shown}: has {len(times)} frames, the episode has {length} steps")
    if facts.is_plain and _is_even(times):
        shutil.copyfile(file, target)
    else:
        _encode(file, target, facts, shown)
    return facts


def _is_even(times: Sequence[int]) -> bool:
    """Whether frames are equally long from the start on: only then is time a measure of steps."""
    return times[0] == 0 and len({after - before for before, after in pairwise(times)}) <= 1


def _encode(file: Path, target: Path, facts: VideoFacts, shown: str) -> None:
    writer = VideoWriter(target, facts.height, facts.width, facts.fps)
    try:
        for frame in read_frames(file, facts.height, facts.width):
            writer.write(frame)
        writer.close()
    except VideoError as error:
        raise DataNotUsableError(f"{shown}: can't be encoded as H.264: {one_line(error)}") from error
    except BaseException:  # an interrupt, too, must leave no encoder running
        writer.abort()
        raise


def video_of_frames(members: Members, length: int, target: Path) -> VideoFacts | None:
    """Encodes the pictures that lie among an episode's arrays; None where there are none, one per step.

    Raises:
        DataNotUsableError: they can't be encoded.
    """
    shape = members.headers[RENDERS].shape if RENDERS in members else ()
    if len(shape) != 4 or shape[0] != length or shape[3] != 3 or members.headers[RENDERS].dtype != np.uint8:  # noqa: PLR2004 (axes, colours)
        return None
    height, width = shape[1:3]
    if members.headers[RENDERS].is_fortran or not 0 < height * width <= MAX_PICTURE_PIXELS:
        return None
    writer = VideoWriter(target, height, width, _DEMONSTRATION_FPS)
    try:
        for frame in _frames(members, height, width):
            writer.write(frame)
        writer.close()
    except VideoError as error:
        raise DataNotUsableError(f"{RENDERS}: can't be encoded as H.264: {one_line(error)}") from error
    except BaseException:  # an interrupt, too, must leave no encoder running
        writer.abort()
        raise
    return VideoFacts(is_plain=True, height=height, width=width, fps=_DEMONSTRATION_FPS)


def _frames(members: Members, height: int, width: int) -> Iterator[Frame]:
    """One picture after the other: memory holds a few."""
    size = height * width * 3
    held = b""
    for chunk in members.column(RENDERS).chunks():
        held += chunk
        while len(held) >= size:
            yield np.frombuffer(held[:size], np.uint8).reshape(height, width, 3)
            held = held[size:]


def convert_thumbnail(file: Path, target: Path, shown: str) -> None:
    """Writes the picture as this data set's thumbnail.

    Raises:
        DataNotUsableError: it is no PNG or JPEG picture, or too large.
    """
    with open_picture(file, shown, PHOTOS) as picture:
        frame = np.asarray(picture.convert("RGB"))
    write_thumbnail(target, frame)
