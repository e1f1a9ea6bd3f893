"""Pictures of others: the one place that opens any.

Pillow goes by a file's first bytes, not by its name, and knows formats that start programs (Ghostscript, for EPS) or
that few have ever read with care. Only those listed here are tried.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from rlhfblender_core.errors import DataNotUsableError, RLHFBlenderError, one_line
from rlhfblender_core.untrusted import limits

PNG = ("PNG",)
PHOTOS = ("PNG", "JPEG")
ICONS = (*PHOTOS, "WEBP", "GIF", "BMP")


@contextlib.contextmanager
def open_picture(
    source: Path | BinaryIO, shown: str, formats: Sequence[str] = ICONS, most: int = limits.MAX_PICTURE_PIXELS
) -> Iterator[Image.Image]:
    """A picture, of which only the size is known so far: its pixels are decoded where they are asked for.

    Args:
        source: the file, or its bytes as a stream.
        shown: the file's name, for messages.
        formats: of Pillow, that it may have.
        most: pixels that it may have.

    Raises:
        DataNotUsableError: it is none of these, too large or damaged; also while the context lasts.
    """
    try:
        if isinstance(source, Path) and source.stat().st_size > limits.MAX_PICTURE_BYTES:
            raise DataNotUsableError(f"{shown}: has more than {limits.MAX_PICTURE_BYTES >> 20} MiB. Make it smaller.")
        # Pillow leaves a file open that it opens and can't read.
        opened = source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source)
        with opened as stream, Image.open(stream, formats=list(formats)) as picture:
            if picture.width * picture.height > most:
                raise DataNotUsableError(
                    f"{shown}: is {picture.width}×{picture.height}, at most {most:,} pixels are taken. Make it smaller."
                )
            yield picture
    except RLHFBlenderError:
        raise
    except Exception as error:  # decoders of pictures raise anything: struct.error, IndexError, Pillow's own warnings
        problem = f"is no picture that can be read: {one_line(error)[:200]}"
        raise DataNotUsableError(f"{shown}: {problem}. Give a {' or '.join(formats[:2])} file.") from error
