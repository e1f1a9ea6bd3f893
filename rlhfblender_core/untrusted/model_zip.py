"""Stable-Baselines3's zip as bytes: read whole, checked, and nothing in it decoded.

What the members mean is in :mod:`.contents`.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.archives import DAMAGED_ARCHIVE, RefusedArchiveError, open_archive, read_member
from rlhfblender_core.untrusted.file_kinds import (
    HEAD_BYTES,
    FileKind,
    is_pointer,
    kind_of_members,
    model_folder,
)
from rlhfblender_core.untrusted.json_values import DamagedJsonError, parse_json

DATA, WEIGHTS, VARIABLES, VERSION = "data", "policy.pth", "pytorch_variables.pth", "_stable_baselines3_version"
_MAX_VERSION_BYTES = 1024
#: What git-lfs's stand-in for a file asks for.
POINTER_PROBLEM = "is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder"
_WAYS_OUT = {
    FileKind.BARE_POLICY: "holds a policy alone, as policy.save() writes it, or another framework's; save the whole "
    "model, with model.save(), or name a function that makes it act with --agent (docs/own_agents.md)",
    FileKind.BASELINES2: "is a model of Stable Baselines 2 (TensorFlow), which can't be loaded; train it again with "
    "Stable-Baselines3, whose hyperparameters have the same names",
}


@dataclass(frozen=True, slots=True)
class ModelArchive:
    """The members of a model's zip that inference needs.

    Attributes:
        path: of the zip, for messages.
        data: the JSON of ``data``; pickled values are still base64 text.
        weights: bytes of ``policy.pth``.
        variables: bytes of ``pytorch_variables.pth``, None where there is none.
        version: of Stable-Baselines3 that saved it, None where it doesn't say.
    """

    path: Path
    data: dict[str, Any]
    weights: bytes
    variables: bytes | None
    version: str | None


def read_archive(path: Path) -> ModelArchive:
    """The model in a zip.

    Raises:
        CheckpointNotUsableError: it can't be read, is no zip, is damaged, too large, or holds no model.
    """
    try:
        with path.open("rb") as file:
            if is_pointer(file.read(HEAD_BYTES)):
                raise refusal(path, POINTER_PROBLEM)
        with open_archive(path) as archive:
            return _read(path, archive)
    except RefusedArchiveError as error:
        raise refusal(path, str(error)) from error
    except OSError as error:
        raise refusal(path, f"can't be read ({error.strerror or error})") from error
    except DAMAGED_ARCHIVE as error:
        raise refusal(path, f"is no intact zip ({_short(error)}); fetch or save it again") from error
    except UnicodeError as error:
        raise refusal(path, "is damaged; fetch or save it again") from error


def refusal(path: Path | str, problem: str) -> CheckpointNotUsableError:
    """One line: which checkpoint file, and what is the matter with it."""
    # Names from within a file may hold line breaks and a terminal's control characters.
    plain = "".join(char if char.isprintable() else "?" for char in " ".join(problem.split()))
    return CheckpointNotUsableError(f"Checkpoint file {str(path)!r} {plain}.")


def _read(path: Path, archive: zipfile.ZipFile) -> ModelArchive:
    infos = archive.infolist()
    if infos and min(info.header_offset for info in infos) > 0:
        # The end of a cut-off model looks like a zip with something before it: the weights are zips themselves.
        raise refusal(path, "is no intact zip (it is cut off or has foreign bytes in front); fetch or save it again")
    names = {info.filename for info in infos}
    folder = model_folder(names)
    if folder is None:
        raise _no_model(path, names)
    version = read_member(archive, folder + VERSION, _MAX_VERSION_BYTES) if folder + VERSION in names else None
    has_variables = folder + VARIABLES in names
    return ModelArchive(
        path=path,
        data=_parse_data(path, read_member(archive, folder + DATA, limits.MAX_JSON_BYTES)),
        weights=read_member(archive, folder + WEIGHTS, limits.MAX_WEIGHTS_BYTES),
        variables=read_member(archive, folder + VARIABLES, limits.MAX_WEIGHTS_BYTES) if has_variables else None,
        version=None if version is None else version.decode(errors="replace").strip()[:20],
    )


def _no_model(path: Path, names: set[str]) -> CheckpointNotUsableError:
    problem = _WAYS_OUT.get(kind_of_members(names))
    if problem is None:
        missing = sorted({DATA, WEIGHTS} - names) or [DATA]
        found = ", ".join(sorted(name[:40] for name in names)[:6]) or "nothing"
        problem = f"is no Stable-Baselines3 model: {' and '.join(missing)} missing, it holds {found}"
        models = [name.removesuffix(f"/{WEIGHTS}") for name in names if name.endswith(f"/{WEIGHTS}")]
        inner = [name for name in names if name.endswith(".zip")] + [f for f in models if f"{f}/{DATA}" in names]
        if inner:
            problem += f"; unpack it and give the path of {min(inner)[:80]}"
        elif any("\\" in name for name in names):
            problem += "; its folders are written with backslashes, zip it again with another program"
    return refusal(path, problem)


def _parse_data(path: Path, content: bytes) -> dict[str, Any]:
    try:
        data = parse_json(content)
    except DamagedJsonError as error:
        raise refusal(path, f"is no Stable-Baselines3 model: its 'data' {error}") from error
    if not isinstance(data, dict):
        raise refusal(path, "is no Stable-Baselines3 model: its 'data' is no JSON object")
    return data


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
