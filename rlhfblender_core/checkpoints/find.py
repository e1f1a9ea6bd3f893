"""Finds checkpoints in RL Zoo's and Stable-Baselines3's folder layouts, local or on any fsspec storage.

Only names are looked at here; fetching and reading is in :mod:`.fetch`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from rlhfblender_core.checkpoints.listing import Folder, open_folder
from rlhfblender_core.dataset.layout import BEST, FINAL
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.names import path_segment

#: The word for "the latest one" among wanted checkpoints.
LATEST = -1

_STEPS = re.compile(r"(?P<prefix>.*?)_?(?P<step>\d{1,15})_steps\.zip")
_BEST_ZIP = "best_model.zip"
_VECNORMALIZE = ("vecnormalize.pkl", "vec_normalize.pkl")
_VERSION = re.compile(r"-v\d+$")


@dataclass(frozen=True, slots=True)
class Companions:
    """URLs of an agent's other files, None where there is none."""

    args: str | None = None
    config: str | None = None
    env_kwargs: str | None = None
    vecnormalize: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One saved model, not opened yet.

    Attributes:
        label: names its folders in the data set: ``"100000"``, ``"final"``, ``"best"``.
        step: training steps, None where the name doesn't say.
        url: of the zip; a plain path for local files.
        companions: its settings and statistics.
    """

    label: str
    step: int | None
    url: str
    companions: Companions = Companions()


def find_checkpoints(
    model_path: str, environment_id: str, storage_options: Mapping[str, Any] | None = None
) -> tuple[CheckpointFile, ...]:
    """All checkpoints of an agent: by step, then ``best``, then ``final``.

    Args:
        model_path: a folder, one ``.zip``, or an fsspec URL of either.
        environment_id: the environment the agent is wanted for; the final model is named after it, in this or
            another version.
        storage_options: for fsspec.

    Raises:
        CheckpointNotUsableError: there is no such place, or no checkpoint in it.
        StorageNotUsableError: the URL's storage can't be used.
        StorageUnavailableError: it doesn't answer.
    """
    name = model_path.rstrip("/")
    if name.endswith(".zip"):
        return (_single(name, environment_id, storage_options),)
    folder = _agent_folder(open_folder(name, storage_options), environment_id)
    found = _in_folder(folder, environment_id)
    if not found:
        raise CheckpointNotUsableError(_nothing_found(folder, environment_id))
    return found


def select_checkpoints(found: Sequence[CheckpointFile], wanted: Sequence[int | str]) -> tuple[CheckpointFile, ...]:
    """The wanted ones in the order they are wanted, each once.

    Args:
        found: what :func:`find_checkpoints` gave.
        wanted: steps, ``"final"``, ``"best"``, or -1 for the latest: the final model, else the highest step, else
            the best.

    Raises:
        CheckpointNotUsableError: one doesn't exist; the message names those that do.
    """
    by_label = {checkpoint.label: checkpoint for checkpoint in found}
    chosen: dict[str, CheckpointFile] = {}
    for want in wanted:
        label = _latest(found).label if str(want).strip() == str(LATEST) else _label(want)
        if label not in by_label:
            existing = ", ".join(by_label) or "none"
            raise CheckpointNotUsableError(f"There is no checkpoint {label!r}. Those that exist: {existing}.")
        chosen[label] = by_label[label]
    return tuple(chosen.values())


def _label(want: int | str) -> str:
    text = str(want).strip()
    return str(int(text)) if text.isascii() and text.isdigit() else text


def _latest(found: Sequence[CheckpointFile]) -> CheckpointFile:
    def rank(checkpoint: CheckpointFile) -> tuple[int, int]:
        order = {FINAL: 2, BEST: 0}
        return order.get(checkpoint.label, 1), checkpoint.step or 0

    if not found:
        raise CheckpointNotUsableError("There are no checkpoints to choose from.")
    return max(found, key=rank)


def _single(url: str, environment_id: str, storage_options: Mapping[str, Any] | None) -> CheckpointFile:
    parent, _, file = url.rpartition("/")
    folder = open_folder(parent or ("/" if url.startswith("/") else "."), storage_options)
    if file not in folder.files:
        kind = "a folder, not a file" if file in folder.folders else "missing"
        zips = ", ".join(_zips(folder)[:8]) or "no zip files"
        raise CheckpointNotUsableError(f"Checkpoint {url!r} is {kind}. Its folder has {zips}.")
    return _checkpoint(folder, file, environment_id)


def _in_folder(folder: Folder, environment_id: str) -> tuple[CheckpointFile, ...]:
    final = _final_zip(folder, environment_id)
    named = [file for file in _zips(folder) if file in (_BEST_ZIP, final) or _STEPS.fullmatch(file)]
    found: dict[str, CheckpointFile] = {}
    for file in named:
        checkpoint = _checkpoint(folder, file, environment_id)
        other = found.setdefault(checkpoint.label, checkpoint)
        if other is not checkpoint:
            raise CheckpointNotUsableError(
                f"Both {other.url!r} and {checkpoint.url!r} are checkpoint {checkpoint.label}. Give the path of one."
            )
    return tuple(sorted(found.values(), key=lambda found: (found.step is None, found.step or 0, found.label)))


def _checkpoint(folder: Folder, file: str, environment_id: str) -> CheckpointFile:
    companions = _companions(folder, file, environment_id)
    steps = _STEPS.fullmatch(file)
    if steps is None:
        label = BEST if file == _BEST_ZIP else FINAL
        return CheckpointFile(label, None, folder.url(file), companions)
    step = int(steps["step"])
    # SB3's CheckpointCallback: <prefix>_vecnormalize_<step>_steps.pkl belongs to this step.
    own = "_".join(part for part in (steps["prefix"], "vecnormalize", steps["step"], "steps.pkl") if part)
    if own in folder.files:
        companions = replace(companions, vecnormalize=folder.url(own))
    return CheckpointFile(str(step), step, folder.url(file), companions)


def _companions(folder: Folder, file: str, environment_id: str) -> Companions:
    """The agent's settings: in the subfolder named after the model or the environment, else beside the zip."""
    stems = [PurePosixPath(file).stem, path_segment(environment_id)]
    final = _final_zip(folder, environment_id)
    stems += [PurePosixPath(final).stem] if final else []
    locations = [folder.subfolder(stem) for stem in dict.fromkeys(stems) if stem in folder.folders]
    locations.append(folder)
    return Companions(
        args=_first(locations, "args.yml"),
        config=_first(locations, "config.yml"),
        env_kwargs=_first(locations, "env_kwargs.yml"),
        vecnormalize=_first(locations, *_VECNORMALIZE),
    )


def _first(locations: Sequence[Folder], *names: str) -> str | None:
    return next((place.url(name) for place in locations for name in names if name in place.files), None)


def _final_zip(folder: Folder, environment_id: str) -> str | None:
    """The final model: named after the environment, in any version; else the only other zip there is."""
    others = [file for file in _zips(folder) if file != _BEST_ZIP and not _STEPS.fullmatch(file)]
    segment = path_segment(environment_id)
    # Without its namespace too: Pong-v5 for ALE/Pong-v5.
    for wanted in dict.fromkeys((segment, path_segment(environment_id.rpartition("/")[2]))):
        for same in (lambda stem, wanted=wanted: stem == wanted, _same_base(wanted), _ends_with(wanted)):
            matching = [file for file in others if same(file.removesuffix(".zip"))]
            if matching:
                # Of several versions, the newest.
                return max(matching, key=_version)
    return others[0] if len(others) == 1 else None


def _same_base(wanted: str) -> Any:
    return lambda stem: _VERSION.sub("", stem) == _VERSION.sub("", wanted)


def _ends_with(wanted: str) -> Any:
    """``ppo-CartPole-v1``, as models on hubs are named."""
    return lambda stem: _VERSION.sub("", stem).endswith("-" + _VERSION.sub("", wanted))


def _version(file: str) -> int:
    match = re.search(r"-v(\d{1,9})\.zip$", file)
    return int(match[1]) if match else -1


def _agent_folder(folder: Folder, environment_id: str) -> Folder:
    """The folder itself, or of RL Zoo's ``<env>_<n>`` in it the one with the highest n."""
    if _zips(folder):
        return folder
    base = _VERSION.sub("", path_segment(environment_id))
    runs: list[tuple[bool, int, int, str]] = []
    for name in folder.folders:
        match = re.fullmatch(r"(?P<env>.+?)(-v(?P<version>\d{1,9}))?_(?P<run>\d{1,9})", name)
        if match and match["env"] == base:
            exact = name.rpartition("_")[0] == path_segment(environment_id)
            runs.append((exact, int(match["version"] or 0), int(match["run"]), name))
    return folder.subfolder(max(runs)[-1]) if runs else folder


def _zips(folder: Folder) -> list[str]:
    return sorted(file for file in folder.files if file.endswith(".zip") and not file.startswith("."))


def _nothing_found(folder: Folder, environment_id: str) -> str:
    held = _zips(folder) or [f"{name}/" for name in sorted(folder.folders)]
    found = f"it holds {', '.join(held[:8])}" if held else "it holds no zip files"
    names = f"rl_model_<step>_steps.zip, {path_segment(environment_id)}.zip and best_model.zip"
    return f"No checkpoints of {environment_id} in {folder.path!r}: {names} were looked for, {found}. Give one's path."
