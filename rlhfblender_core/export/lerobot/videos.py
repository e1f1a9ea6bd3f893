"""The episodes' videos one after the other in files of some hundred megabytes, copied without being encoded again.

Frame ``k`` of a file is shown at ``k / fps`` exactly: the streams are joined without their times, and get new ones.
Joined as files, their rounded durations add up, and LeRobot refuses a frame that is a tenth of a millisecond off.
"""

import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from rlhfblender_core.dataset.video import READING, ffmpeg_program
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.storage import full_disk_errors

#: A file that has this many bytes, or videos, is followed by another.
_FILE_BYTES, _FILE_VIDEOS = 200 << 20, 1000
#: How far a frame may be off, in seconds: a tenth of what LeRobot tolerates.
_PRECISION = Fraction(1, 100_000)
#: How an MP4 begins, after four bytes: ffmpeg goes by the content, and a playlist would have it open other files.
_MP4 = b"ftyp"


@dataclass(frozen=True)
class Place:
    """Where an episode's video is: the file's number, and its first frame there."""

    file: int
    first_frame: int


@dataclass
class JoinedVideos:
    """Files of joined videos.

    Args:
        pattern: path of a file with ``{}`` for its number.
        fps: of all videos.
        scratch: folder for unfinished files.
    """

    pattern: str
    fps: Fraction
    scratch: Path
    _file: int = 0
    _waiting: list[Path] = field(default_factory=list)
    _bytes: int = 0
    _frames: int = 0

    def add(self, video: Path, frames: int) -> Place:
        """Adds a video of so many frames.

        Raises:
            DataNotUsableError: it isn't an MP4.
        """
        with video.open("rb") as stream:
            if stream.read(8)[4:] != _MP4:
                raise DataNotUsableError(f"{video} is no MP4 file. Run `python flows/verify.py --repair`.")
        place = Place(self._file, self._frames)
        link = self.scratch / f"{len(self._waiting):06}.mp4"
        link.symlink_to(video.absolute())
        self._waiting.append(link)
        self._bytes += video.stat().st_size
        self._frames += frames
        if self._bytes >= _FILE_BYTES or len(self._waiting) >= _FILE_VIDEOS:
            self.close()
        return place

    def close(self) -> None:
        """Writes the file whose videos wait.

        Raises:
            DataNotUsableError: the videos don't have the frames that they were said to have.
        """
        if not self._waiting:
            return
        file = Path(self.pattern.format(self._file))
        file.parent.mkdir(parents=True, exist_ok=True)
        self._join(file)
        times = _packet_times(file)
        expected = (number / self.fps for number in range(self._frames))
        if len(times) != self._frames or any(abs(a - b) > _PRECISION for a, b in zip(times, expected, strict=True)):
            raise DataNotUsableError(
                f"Videos have {len(times):,} frames in even steps instead of {self._frames:,}. "
                "Run `python flows/verify.py --repair`."
            )
        for link in self._waiting:
            fetched = link.resolve()
            link.unlink()
            if fetched.parent == self.scratch.resolve():
                fetched.unlink()
        self._file, self._waiting, self._bytes, self._frames = self._file + 1, [], 0, 0

    def _join(self, file: Path) -> None:
        listing = self.scratch / "videos.ffconcat"
        names = (f"file {link.name}\n" for link in self._waiting)
        listing.write_text("ffconcat version 1.0\n" + "".join(names))
        quiet = (ffmpeg_program(), "-y", "-v", "error", "-nostdin")
        read = [*quiet, "-protocol_whitelist", "file", "-f", "concat", "-i", str(listing), "-map", "0:v:0"]
        write = [*quiet[:-1], "-protocol_whitelist", "pipe", "-f", "h264", "-framerate", str(self.fps), "-i", "pipe:0"]
        # Raw H.264 has no times. Those that ffmpeg makes up are rounded to microseconds, which add up as well.
        times = f"setts=ts=round(N*{self.fps.denominator}/{self.fps.numerator}/TB)"
        with (
            full_disk_errors(file),
            subprocess.Popen(
                [*read, "-c", "copy", "-f", "h264", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as streams,
        ):
            done = subprocess.run(
                [*write, "-c", "copy", "-bsf:v", times, "-movflags", "+faststart", "-fflags", "+bitexact", str(file)],
                stdin=streams.stdout,
                capture_output=True,
                text=True,
                check=False,
            )
            messages = streams.stderr.read().decode(errors="replace") if streams.stderr else ""
        if streams.returncode or done.returncode:
            cause = next(iter([*messages.splitlines(), *done.stderr.splitlines()]), "no message")
            raise DataNotUsableError(f"Videos can't be joined: {cause}. Run `python flows/verify.py --repair`.")


def _packet_times(file: Path) -> list[Fraction]:
    """When each frame is shown, in seconds, in the order in which they lie in the file."""
    command = [ffmpeg_program(), "-v", "error", *READING, "-i", str(file), "-map", "0:v:0"]
    command += ["-c", "copy", "-f", "framecrc", "-"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = found.stdout.splitlines()
    unit = next((Fraction(line.split(": ")[1]) for line in lines if line.startswith("#tb ")), Fraction(1))
    return [int(line.split(",")[2]) * unit for line in lines if not line.startswith("#")]
