"""The one place that tells what file systems raise: the user's to mend, or worth another try.

Clients of object storage have no common base for their errors; they are told by name, status and module.
"""

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.errors import StorageFullError, StorageNotUsableError, StorageUnavailableError, one_line
from rlhfblender_core.storage.root import DataRoot

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# EEXIST: a file where a folder should be; ENOTEMPTY: a folder where a file should be.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP),
)
#: What a local disk says that is failing: waiting doesn't mend it.
_BROKEN = (errno.EIO, errno.EBADMSG)
#: Modules of network clients. What they raise, and is no OSError, is a time-out, a reset or a bad answer …
_CLIENTS = frozenset({"aiohttp", "botocore", "aiobotocore", "urllib3", "requests", "azure", "gcsfs", "google"})
#: … but for these, which another try doesn't mend.
_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "DefaultCredentialsError",
        "ClientAuthenticationError",
    }
)
_UNAUTHORISED = frozenset({401, 403})
_WRONG_SETTINGS = frozenset({"ParamValidationError", "InvalidRegionError", "UnknownEndpointError", "InvalidEndpoint"})
_NOT_FOUND = frozenset({"ResourceNotFoundError", "NoSuchBucket"})

#: Characters of a client's words in our line.
_LONGEST = 250


@contextlib.contextmanager
def storage_errors(root: DataRoot) -> Iterator[None]:
    """Raises what file systems raise as our errors; only FileNotFoundError stays, for the caller to say what it means.

    Raises:
        StorageNotUsableError: no space, no permission, wrong credentials or settings.
        StorageUnavailableError: throttled, reset, timed out.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise translated(root, error) from error
    except Exception as error:
        is_clients = type(error).__module__.partition(".")[0] in _CLIENTS
        if root.is_local or not (is_clients or _is_wrong_setting(error)):
            raise
        if is_not_found(error):
            raise FileNotFoundError(errno.ENOENT, one_line(error), root.url) from error
        raise _translated_client(root, error) from error


def is_refusal(error: Exception) -> bool:
    """Whether object storage doesn't let us in: no credentials, wrong ones, or too few rights."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    is_named = isinstance(error, PermissionError) or type(error).__name__ in _CREDENTIALS
    return is_named or status in _UNAUTHORISED or str(error).startswith("Forbidden")  # gcsfs's word


def is_not_found(error: Exception) -> bool:
    """Whether there is nothing there, in whatever class a client says it."""
    return isinstance(error, FileNotFoundError) or type(error).__name__ in _NOT_FOUND


def words_of(error: Exception) -> str:
    """What a client says, short enough for a line of ours and without a full stop."""
    text = " ".join(str(error).partition("RequestId:")[0].split())  # Azure appends the whole answer
    return (without_credentials(text) or type(error).__name__)[:_LONGEST].rstrip(".")


def no_bucket(root: DataRoot) -> StorageNotUsableError:
    """Our error for "not found" where something is written."""
    return StorageNotUsableError(f"There is no bucket for {root.url}. Create it, or check --data-root.")


def gone(folder: Path) -> StorageNotUsableError:
    """Our error for a run's folder that isn't there any more."""
    return StorageNotUsableError(
        f"The run's folder {folder} is gone: was the data root unmounted or removed? Run the same command again."
    )


def translated(root: DataRoot, error: OSError) -> StorageNotUsableError | StorageUnavailableError:
    """Our error for an operating system's, or one of those that clients raise in its name."""
    if error.errno in _DISK_FULL:
        return full_disk(Path(error.filename or root.local_folder) if root.is_local else Path(tempfile.gettempdir()))
    if not root.is_local and is_refusal(error):
        return _refused(root, error)
    if root.is_local and error.errno in _BROKEN:
        return StorageNotUsableError(
            f"The disk of {root.url} does not work properly: {_text(error)}. Look into the disk or the mount, then run "
            "the same command again."
        )
    if isinstance(error, PermissionError) or error.errno in _REFUSED:
        return StorageNotUsableError(
            f"The data root {root.url} can't be used: {_text(error)}. Check the path and its permissions, or give "
            "another with --data-root."
        )
    return StorageUnavailableError(f"{root.url} did not answer properly: {_text(error)}. Run the same command again.")


def _translated_client(root: DataRoot, error: Exception) -> StorageNotUsableError | StorageUnavailableError:
    if is_refusal(error):
        return _refused(root, error)
    if _is_wrong_setting(error):
        return StorageNotUsableError(
            f"The data root {root.url} can't be used: {_text(error)}. Check --data-root and "
            "RLHFBLENDER_STORAGE_OPTIONS."
        )
    return StorageUnavailableError(f"{root.url} did not answer properly: {_text(error)}. Run the same command again.")


def _is_wrong_setting(error: Exception) -> bool:
    """Whether options are the matter: those that a client doesn't know, or can't do with.

    gcsfs raises ValueError for what its server finds wrong with a request; s3fs hands options on when it connects.
    """
    is_unknown = isinstance(error, TypeError) and "unexpected keyword argument" in str(error)
    return is_unknown or isinstance(error, ValueError) or type(error).__name__ in _WRONG_SETTINGS


def _refused(root: DataRoot, error: Exception) -> StorageNotUsableError:
    return StorageNotUsableError(
        f"{root.url} refuses access: {_text(error)}. Check the credentials (the storage's usual environment variables, "
        "or RLHFBLENDER_STORAGE_OPTIONS) and their rights."
    )


@contextlib.contextmanager
def full_disk_errors(folder: Path) -> Iterator[None]:
    """Turns "no space left" into our error, where files are written into a folder; other errors stay.

    Raises:
        StorageFullError: the folder's disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise full_disk(Path(error.filename or folder)) from error


def full_disk(path: Path) -> StorageFullError:
    """Our error for a disk without space, by the path that couldn't be written."""
    disk = path.absolute()
    while not disk.is_mount() and disk != disk.parent:
        disk = disk.parent
    return StorageFullError(
        f"The disk {disk} is full, {path} can't be written. Free some space and run the same command again."
    )


def cause_of(error: BaseException) -> str:
    """What the operating system said, where an error of ours came from it."""
    cause = error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or one_line(cause or error)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return words_of(error)
