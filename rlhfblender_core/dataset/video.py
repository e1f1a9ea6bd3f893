"""Videos: frames stream to an ffmpeg process as they are rendered, and are counted and decoded again for checks.

Our own pipe instead of ``imageio_ffmpeg.write_frames``, which neither reports ffmpeg's exit status nor its messages: a
full disk would pass for a good video. The ffmpeg program is imageio-ffmpeg's.

The settings (measured in ``docs/performance.md``): H.264 in yuv420p plays in every browser; no B-frames, so that
seeking to a step is exact and the first timestamp is 0; ``+faststart``, so that a browser starts before the whole
file is there; one thread, because several would fight the renderer for the cores, and the bytes would depend on how
many there are.
"""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.storage import full_disk

try:
    import fcntl
except ImportError:  # Windows has no fcntl; frames then go through a pipe of the default size
    fcntl = None  # type: ignore[assignment]

Frame = NDArray[np.uint8]

#: H.264's preset and quality: see ``docs/performance.md`` for time, size and picture of the alternatives. The same
#: quantiser everywhere saves the encoder a look at each block.
PRESET = "ultrafast"
QP = 20
#: A key frame every so many frames: where a browser can seek to quickly.
KEYFRAME_INTERVAL = 60
#: The slowest that fits into ffmpeg's fractions; below it the rate would become 0.
_SLOWEST = Fraction(1, 1001)
_PIPE_BYTES = 1 << 20
#: H.264's longest side, in pixels.
_MAX_SIDE = 16_384
_ENCODER_TIMEOUT = 120.0
#: Before each file that is read. ffmpeg goes by the content, and a playlist would have it open other files: it is told
#: what to expect. A frame's size is what a file claims of itself; 2²⁶ pixels are more than H.264's largest level has.
READING = ("-max_pixels", str(1 << 26), "-protocol_whitelist", "file", "-f", "mov")
#: ``[libx264 @ 0x55c129563540] ``
_SPEAKER = re.compile(r"^(\[[^\]]* @ 0x[0-9a-f]+\] ?)+")


class VideoError(Exception):
    """The encoder failed; the message is ffmpeg's first line, which names the cause."""


def frame_fault(frame: object) -> str | None:
    """What is wrong with a frame, as the end of a sentence that begins "render() returned"; None if nothing is."""
    expected = f"not an array (height, width, 3) of uint8 with 1 to {_MAX_SIDE:,} pixels a side"
    if not isinstance(frame, np.ndarray):
        return f"{type(frame).__name__}, {expected}"
    is_picture = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3  # noqa: PLR2004 (axes, colours)
    if is_picture and all(1 <= side <= _MAX_SIDE for side in frame.shape[:2]):
        return None
    return f"an array {frame.shape} of {frame.dtype}, {expected}"


class VideoWriter:
    """An H.264 file that grows frame by frame; memory stays at one frame.

    Args:
        path: the file to write, ending in ``.mp4``.
        height, width: of the frames in pixels; odd sides get one row or column of padding.
        fps: frames per second, positive.
    """

    def __init__(self, path: Path, height: int, width: int, fps: float) -> None:
        self._path = path
        self.frames = 0
        self._shape = (height, width, 3)
        self._process = subprocess.Popen(
            encoder_command(path, height, width, fps),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us; we end the encoder
        )
        _widen(self._stdin)

    @property
    def _stdin(self) -> IO[bytes]:
        stream = self._process.stdin
        assert stream is not None, "opened with stdin=PIPE"  # noqa: S101 (for the type checker)
        return stream

    def write(self, frame: Frame) -> None:
        """Appends a frame, (height, width, 3) uint8 RGB.

        Raises:
            ValueError: the frame has another shape or dtype than the first.
            VideoError: the encoder has died.
        """
        if frame.shape != self._shape or frame.dtype != np.uint8:
            expected = f"{self._shape} uint8"
            raise ValueError(f"render() returned a frame of {frame.shape} {frame.dtype} after frames of {expected}")
        view = np.ascontiguousarray(frame).data.cast("B")
        try:
            while view:
                view = view[self._stdin.write(view) :]
        except OSError as error:
            raise self._failed(self._end()) from error
        self.frames += 1

    def close(self) -> None:
        """Finishes the file.

        Raises:
            VideoError: the encoder reported an error.
        """
        try:
            # Ends with its messages; waiting for the process with a time limit would look at it now and then.
            _, messages = self._process.communicate(timeout=_ENCODER_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            self.abort()
            raise VideoError(f"the video encoder did not finish within {_ENCODER_TIMEOUT:.0f} s") from error
        if self._process.returncode != 0:
            raise self._failed(messages)

    def abort(self) -> None:
        """Ends the encoder at once; what it wrote is no video."""
        self._end()

    def _end(self) -> bytes:
        """Its messages."""
        self._process.kill()
        return self._process.communicate()[1]

    def _failed(self, messages: bytes) -> Exception:
        text = messages.decode(errors="replace").strip()
        if "No space left on device" in text:
            return full_disk(self._path)
        status = self._process.returncode
        return VideoError(f"the video encoder failed: {_cause(text) or f'exit status {status}'}")


def count_frames(path: Path) -> int:
    """How many frames the video's stream decodes to.

    Raises:
        DataNotUsableError: it doesn't decode.
    """
    counts = [line for line in _decode(path, "null", "-progress", "-") if line.startswith("frame=")]
    if not counts:
        raise DataNotUsableError(f"The video {path.name} does not decode: no video stream")
    return int(counts[-1].partition("=")[2])


def frame_times(path: Path, most: int | None = None) -> list[int]:
    """When each frame is shown, in the stream's own unit of time; frames may be any time apart.

    Args:
        path: of the video.
        most: frames that are decoded, None for all; a small file may have millions.

    Raises:
        DataNotUsableError: it doesn't decode.
    """
    limit = () if most is None else ("-frames:v", str(most))
    rows = (line.split(",") for line in _decode(path, "framecrc", *limit) if not line.startswith("#"))
    return [int(presented) for _, _, presented, *_ in rows]


def _decode(path: Path, output: str, *options: str) -> list[str]:
    """Decodes every frame, once; the lines that ffmpeg writes."""
    command = [
        # One thread: several take longer to start than a short video to decode, and videos are looked at side by side.
        *(ffmpeg_program(), "-v", "error", "-xerror", "-copyts", "-threads", "1", *READING, "-i", str(path)),
        *("-map", "0:v:0"),
        # Times as they are: a late start isn't hidden, uneven frames aren't dropped, doubled, or an error.
        *("-fps_mode", "passthrough", "-enc_time_base", "demux"),
        *("-f", output, *options, "-"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode != 0 or result.stderr.strip():
        raise DataNotUsableError(f"The video {path.name} does not decode: {_cause(result.stderr) or 'no video stream'}")
    return result.stdout.splitlines()


def _cause(messages: str) -> str:
    """The first of ffmpeg's lines, which names the cause, without the address of the part that says it."""
    return _SPEAKER.sub("", next(iter(messages.strip().splitlines()), ""))


def read_frames(path: Path, height: int, width: int, *, start: float = 0.0, most: int | None = None) -> Iterator[Frame]:
    """The frames of a video of known size, (height, width, 3) uint8 RGB each.

    Args:
        path: of the video.
        height: of its frames.
        width: likewise.
        start: seconds from which on.
        most: frames that are decoded; None for all.
    """
    command = [
        *(ffmpeg_program(), "-v", "error", *(("-ss", f"{start:.6f}") if start else ()), *READING, "-i", str(path)),
        *(("-frames:v", str(most)) if most is not None else ()),
        *("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        try:
            while len(chunk := process.stdout.read(height * width * 3)) == height * width * 3:
                yield np.frombuffer(chunk, np.uint8).reshape(height, width, 3)
        except GeneratorExit:
            process.kill()  # else it would tell the terminal of a broken pipe, where a reader wants no more
            raise


def read_frame(path: Path, number: int, fps: float, height: int, width: int) -> Frame | None:
    """One frame of a video of ours, by seeking to the key frame before it; None if the video ends before it.

    Args:
        path: of the video.
        number: of the frame, from 0.
        fps: frames per second, as the video was encoded.
        height: of the video.
        width: likewise.
    """
    # Aimed half a frame early: times are rounded, and the first frame that isn't earlier is taken.
    start = max(Fraction(0), (number - Fraction(1, 2)) / _encoded_rate(fps))
    return next(iter(read_frames(path, height, width, start=float(start), most=1)), None)


def even(side: int) -> int:
    """The side of the video for a frame's side: yuv420p shares colour between two pixels, so sides are even."""
    return side + side % 2


def encoder_command(path: Path, height: int, width: int, fps: float) -> list[str]:
    """The command that encodes frames of that size from its standard input."""
    rate = str(_encoded_rate(fps))
    # Explicit conversion and tags: left to guess, players disagree about the colours of small videos.
    filters = "scale=out_color_matrix=bt709:out_range=tv"
    if height % 2 or width % 2:
        filters = f"pad={even(width)}:{even(height)},{filters}"
    return [
        *(ffmpeg_program(), "-y", "-v", "error", "-nostdin", "-f", "rawvideo", "-pix_fmt", "rgb24"),
        *("-s", f"{width}x{height}", "-r", rate, "-i", "pipe:0", "-an", "-vf", filters, "-sws_flags", "area"),
        *("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", PRESET, "-qp", str(QP), "-bf", "0"),
        *("-g", str(KEYFRAME_INTERVAL), "-threads", "1", "-filter_threads", "1"),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
        *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", "-movflags", "+faststart"),
        str(path),
    ]


def _encoded_rate(fps: float) -> Fraction:
    """Frames per second as ffmpeg is told them."""
    return max(_SLOWEST, Fraction(fps).limit_denominator(1001))


def ffmpeg_program() -> str:
    """The ffmpeg that imageio-ffmpeg brings."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _widen(stream: IO[Any]) -> None:
    """Lets a whole frame into the pipe, so that the next step doesn't wait for the encoder to fetch this one."""
    if fcntl is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the system's limit is lower: slower, not wrong
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
