"""A video as a GIF, with colours of its own."""

import subprocess
from pathlib import Path

from rlhfblender_core.dataset.video import VideoError, ffmpeg_program

_PALETTE = "palettegen=stats_mode=diff"
_DITHER = "paletteuse=dither=bayer:bayer_scale=5:diff_mode=rectangle"


def write_gif(video: Path, target: Path, fps: float, width: int) -> None:
    """Writes it: twice through the video, as the colours of all pictures are chosen before the first.

    Args:
        video: H.264 in MP4.
        target: the GIF.
        fps: its pictures per second; above 33, viewers slow them down.
        width: its width in pixels at most.

    Raises:
        VideoError: the video can't be read, or the GIF can't be written.
    """
    scaled = f"fps={fps},scale='min(iw,{width})':-2:flags=lanczos"
    palette = target.with_name(f"{target.stem}-palette.png")
    try:
        _ffmpeg("-i", video, "-vf", f"{scaled},{_PALETTE}", palette)
        _ffmpeg("-i", video, "-i", palette, "-lavfi", f"{scaled}[x];[x][1:v]{_DITHER}", "-loop", "0", target)
    finally:
        palette.unlink(missing_ok=True)


def _ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_program(), "-y", "-v", "error", "-nostdin", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise VideoError(next(iter(done.stderr.splitlines()), f"exit status {done.returncode}"))
