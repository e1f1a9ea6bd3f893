"""JSON texts of others. Python's reader makes 56 bytes of every two: values are counted before they are made."""

import json
from collections.abc import Callable
from typing import Any

from rlhfblender_core.untrusted import limits

_PUNCTUATION = (b"[", b"{", b",", b":")


class DamagedJsonError(ValueError):
    """A text that is no JSON, or asks for too much; the text is the end of a sentence."""


def parse_json(
    content: bytes | str, most: int = limits.MAX_JSON_BYTES, constant: Callable[[str], Any] | None = None
) -> Any:
    """The value that a JSON text holds.

    Args:
        content: the text, or its bytes in UTF-8.
        most: bytes that it may have.
        constant: makes a value of ``NaN`` and the infinities, which are no JSON; None for floats.

    Raises:
        DamagedJsonError: it is too long, holds too many values, is nested too deeply, or is no JSON.
    """
    if isinstance(content, str):
        content = content.encode(errors="surrogatepass")
    if len(content) > most:
        raise DamagedJsonError(f"has {len(content):,} bytes, at most {most:,} are read")
    if sum(map(content.count, _PUNCTUATION)) > limits.MAX_JSON_VALUES:
        raise DamagedJsonError(f"holds more than {limits.MAX_JSON_VALUES:,} values")
    try:
        return json.loads(content.decode(errors="surrogatepass"), parse_constant=constant)
    except RecursionError as error:
        raise DamagedJsonError("is nested too deeply") from error
    except ValueError as error:
        raise DamagedJsonError(f"is no JSON ({' '.join(str(error).split())[:100]})") from error
