"""Passwords and tokens in URLs: where they may stand, so that nobody sees or keeps them."""

import re

#: ``user:password@``. Where what follows the colon is no port, the password may hold any character, and some spaces.
_PASSWORD = r"(?<=://)[^/\s@:\[\]<]*:(?!\d+(?:[/?#\s'\",;]|$))(?:\S*@|[^\n'\"`]{1,100}?@)"  # noqa: S105 (a pattern)
#: Web servers take a token as the user's name. In ``abfss://container@account`` it is a place.
_USER = r"(?<=http://)[^/\s@]+@|(?<=https://)[^/\s@]+@"
_USERINFO = re.compile(rf"(?i){_PASSWORD}|{_USER}")
#: Signatures stand in the query: ``?sig=``, ``?X-Amz-Signature=``. A lone ``#`` may be part of a name.
_QUERY = re.compile(r"(?<=://)([^\s?#'\"`<>]+)([?]|#(?=[^\s'\"`<>]*=))([^\s'\"`<>]+)")
_HIDDEN = "***"
#: Ends a sentence rather than a URL.
_STOPS = ".,;:)"


def without_credentials(text: str) -> str:
    """The text, the passwords and queries of the URLs in it written as ``***``."""
    if "://" not in text:
        return text
    return _QUERY.sub(_without_query, _USERINFO.sub(f"{_HIDDEN}@", text))


def _without_query(found: re.Match[str]) -> str:
    place, mark, query = found.groups()
    kept = query.rstrip(_STOPS)
    return f"{place}{mark}{_HIDDEN}{query[len(kept) :]}" if kept else found[0]


def has_credentials(url: str) -> bool:
    """Whether a URL holds a password or a query: ``sftp://user:password@host``, ``https://host/a.zip?sig=…``.

    A local path never does, whatever its name.
    """
    is_local = url.startswith(("file://", "local://")) and "::" not in url
    return without_credentials(url) != url and not is_local
