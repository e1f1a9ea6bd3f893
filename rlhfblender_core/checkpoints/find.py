"""Finds the checkpoints in a folder of RL Zoo's, Stable-Baselines3's or any other trainer, local or on any storage.

RL Zoo's and Stable-Baselines3's own names are believed; of other files a few bytes are read (:mod:`.looking`). What a
name says is in :mod:`.naming`, which checkpoints are wanted in :mod:`.select`, fetching and reading in :mod:`.fetch`.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhfblender_core.checkpoints.listing import Folder, is_folder, not_a_checkpoint, open_folder
from rlhfblender_core.checkpoints.looking import UNZIPPED, kinds_of, unzipped_models
from rlhfblender_core.checkpoints.naming import (
    BEST_MODEL,
    NamedModel,
    base_of,
    callback_step,
    final_model,
    named_models,
    stem_of,
)
from rlhfblender_core.dataset.layout import FINAL
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.names import path_segment
from rlhfblender_core.untrusted.file_kinds import FileKind

_VECNORMALIZE = ("vecnormalize.pkl", "vec_normalize.pkl")
#: Files of other names that are looked into: all zips of a long training, some of the rest.
_MOST_ZIPS, _MOST_OTHERS, _MOST_FOLDERS = 10_000, 200, 200
#: What is never a model, whatever is in it.
_NO_MODELS = (
    ".csv", ".gif", ".html", ".json", ".jsonl", ".log", ".md", ".mp4", ".npy", ".npz", ".onnx", ".pkl", ".png", ".pt",
    ".pth", ".py", ".toml", ".txt", ".yaml", ".yml",
)  # fmt: skip
#: A file of these kinds was meant as a model: what is the matter with it is told when it is fetched.
_MEANT = (FileKind.MODEL, FileKind.INCOMPLETE, FileKind.POINTER, FileKind.BARE_POLICY, FileKind.BASELINES2)


@dataclass(frozen=True, slots=True)
class Companions:
    """URLs of an agent's other files, None where there is none.

    Attributes:
        pickles: files beside the model whose names don't say that they hold statistics, and that may.
    """

    args: str | None = None
    config: str | None = None
    env_kwargs: str | None = None
    vecnormalize: str | None = None
    pickles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One saved model, not opened yet.

    Attributes:
        label: names its folders in the data set: ``"100000"``, ``"final"``, ``"best"``.
        step: training steps, None where the name doesn't say.
        url: of the zip, or of the folder it was unzipped into; a plain path for local files.
        companions: its settings and statistics.
    """

    label: str
    step: int | None
    url: str
    companions: Companions = Companions()


def find_checkpoints(
    model_path: str,
    environment_id: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    pattern: str | None = None,
) -> tuple[CheckpointFile, ...]:
    """All checkpoints of an agent: by step, then ``best``, then ``final``.

    Args:
        model_path: a folder, one model (``.zip`` may be left out), or an fsspec URL of either.
        environment_id: the environment the agent is wanted for; the final model may be named after it, in this or
            another version.
        storage_options: for fsspec.
        pattern: which names are checkpoints, with ``{step}`` where the steps stand; None to find out.

    Raises:
        CheckpointNotUsableError: there is no such place, or no checkpoint in it, or it isn't clear which are.
        StorageNotUsableError: the URL's storage can't be used.
        StorageUnavailableError: it doesn't answer.
        InvalidParameterError: the pattern is none.
    """
    path = model_path.rstrip("/") or "/"
    if path.endswith(".zip"):
        return (_single(path, environment_id, storage_options, pattern),)
    kind = is_folder(path, storage_options)
    if kind is not True:
        existing = path if kind is False else _with_extension(path, storage_options)
        return (_single(existing, environment_id, storage_options, pattern),)
    folder = open_folder(path, storage_options)
    if folder.files >= UNZIPPED:
        return (_single(path, environment_id, storage_options, pattern),)
    folder = _agent_folder(folder, environment_id)
    found = _in_folder(folder, environment_id, pattern)
    if not found:
        raise CheckpointNotUsableError(_nothing_found(folder, environment_id, pattern))
    return found


def _with_extension(path: str, storage_options: Mapping[str, Any] | None) -> str:
    """The path with the ``.zip`` that Stable-Baselines3 adds to the names of models.

    Raises:
        CheckpointNotUsableError: there is no such file either; with the name that was meant, if one is like it.
    """
    parent, name = _split(path)
    if is_folder(parent, storage_options):
        folder = open_folder(parent, storage_options)
        if f"{name}.zip" in folder.files:
            return f"{path}.zip"
        close = difflib.get_close_matches(name, [*_zips(folder), *sorted(folder.folders)], n=1)
        if close:
            raise CheckpointNotUsableError(f"There is nothing at {path!r}. Did you mean {folder.url(close[0])!r}?")
    raise CheckpointNotUsableError(f"There is nothing at {path!r}. Check the path of the model.")


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent or ("/" if path.startswith("/") else "."), name


def _single(
    url: str, environment_id: str, storage_options: Mapping[str, Any] | None, pattern: str | None
) -> CheckpointFile:
    """One model, labelled as it would be among its neighbours."""
    parent, name = _split(url)
    folder = open_folder(parent, storage_options)
    if name in folder.folders:
        if not folder.subfolder(name).files >= UNZIPPED:
            raise CheckpointNotUsableError(f"Checkpoint {url!r} is a folder, not a file. {_zips_of(folder)}")
    elif name not in folder.files:
        close = difflib.get_close_matches(name, _zips(folder), n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise CheckpointNotUsableError(f"Checkpoint {url!r} is missing. {_zips_of(folder)}{meant}")
    elif not name.endswith(".zip") and kinds_of(folder, [name])[name] not in _MEANT:
        raise CheckpointNotUsableError(not_a_checkpoint(url))
    return _checkpoint(folder, name, _named_alone(folder, name, environment_id, pattern), environment_id)


def _named_alone(folder: Folder, name: str, environment_id: str, pattern: str | None) -> NamedModel:
    try:
        among = named_models([*_models(folder), *([] if name.endswith(".zip") else [name])], environment_id, pattern)
    except CheckpointNotUsableError:  # about the others; this one was chosen
        among = named_models([name], environment_id, pattern)
    return among.get(name) or NamedModel(FINAL, None)


def _zips_of(folder: Folder) -> str:
    return f"Its folder has {', '.join(_zips(folder)[:8]) or 'no zip files'}."


def _in_folder(folder: Folder, environment_id: str, pattern: str | None) -> tuple[CheckpointFile, ...]:
    found: dict[str, CheckpointFile] = {}
    for name, named in named_models(_models(folder), environment_id, pattern).items():
        checkpoint = _checkpoint(folder, name, named, environment_id)
        other = found.setdefault(checkpoint.label, checkpoint)
        if other is not checkpoint:
            raise CheckpointNotUsableError(
                f"Both {other.url!r} and {checkpoint.url!r} are checkpoint {checkpoint.label}. Give the path of one, "
                "or say which names are checkpoints with --checkpoint-pattern."
            )
    return tuple(sorted(found.values(), key=lambda found: (found.step is None, found.step or 0, found.label)))


def _models(folder: Folder) -> list[str]:
    """The models of a folder: zips and others, whole or still being written, and folders that hold one unzipped."""
    believed = [name for name in _zips(folder) if stem_of(name) == BEST_MODEL or callback_step(stem_of(name))]
    zips = [name for name in _zips(folder) if name not in believed][:_MOST_ZIPS]
    visible = sorted(name for name in folder.files if not name.startswith(".") and not name.endswith(".zip"))
    others = [name for name in visible if not name.lower().endswith(_NO_MODELS)][:_MOST_OTHERS]
    kinds = kinds_of(folder, [*zips, *others])
    found = believed + [name for name in zips if kinds[name] in _MEANT]
    found += [name for name in others if kinds[name] in (FileKind.MODEL, FileKind.INCOMPLETE) and folder.sizes[name]]
    # A hub's repository has the same model zipped and unzipped.
    stems = {stem_of(name) for name in found}
    unzipped = [name for name in sorted(folder.folders) if name not in stems and not name.startswith(".")]
    return sorted(found + unzipped_models(folder, unzipped[:_MOST_FOLDERS]))


def _checkpoint(folder: Folder, name: str, named: NamedModel, environment_id: str) -> CheckpointFile:
    companions = _companions(folder, name, environment_id)
    steps = callback_step(stem_of(name))
    if steps is not None:
        # SB3's CheckpointCallback: <prefix>_vecnormalize_<step>_steps.pkl belongs to this step.
        own = "_".join(part for part in (steps["prefix"], "vecnormalize", steps["step"], "steps.pkl") if part)
        if own in folder.files:
            companions = replace(companions, vecnormalize=folder.url(own))
    return CheckpointFile(named.label, named.step, folder.url(name), companions)


def _companions(folder: Folder, name: str, environment_id: str) -> Companions:
    """The agent's settings: in the subfolder named after the model or the environment, else beside the zip."""
    stems = [stem_of(name), path_segment(environment_id)]
    final = _final_among(folder, environment_id)
    stems += [stem_of(final)] if final else []
    # RL Zoo's own folder of settings, where the environment asked for has another name: Pong-v4_1/Pong-v4/.
    stems.append(re.sub(r"_\d{1,9}$", "", folder.path.rpartition("/")[2]))
    places = [folder.subfolder(stem) for stem in dict.fromkeys(stems) if stem in folder.folders]
    places.append(folder)
    return Companions(
        args=_first(places, "args.yml"),
        config=_first(places, "config.yml"),
        env_kwargs=_first(places, "env_kwargs.yml"),
        vecnormalize=_first(places, *_VECNORMALIZE),
        pickles=tuple(place.url(file) for place in places for file in sorted(place.files) if file.endswith(".pkl")),
    )


def _final_among(folder: Folder, environment_id: str) -> str | None:
    others = [name for name in _zips(folder) if stem_of(name) != BEST_MODEL and not callback_step(stem_of(name))]
    try:
        return final_model(others, environment_id) or (others[0] if len(others) == 1 else None)
    except CheckpointNotUsableError:  # told where the folder's checkpoints are listed
        return None


def _first(places: Sequence[Folder], *names: str) -> str | None:
    return next((place.url(name) for place in places for name in names if name in place.files), None)


def _agent_folder(folder: Folder, environment_id: str) -> Folder:
    """The folder itself, or of RL Zoo's ``<env>_<n>`` in it the one with the highest n."""
    if _zips(folder):
        return folder
    base = base_of(path_segment(environment_id))
    runs: list[tuple[bool, int, int, str]] = []
    for name in folder.folders:
        match = re.fullmatch(r"(?P<env>.+?)(-v(?P<version>\d{1,9}))?_(?P<run>\d{1,9})", name)
        if match and match["env"] == base:
            exact = name.rpartition("_")[0] == path_segment(environment_id)
            runs.append((exact, int(match["version"] or 0), int(match["run"]), name))
    return folder.subfolder(max(runs)[-1]) if runs else folder


def _zips(folder: Folder) -> list[str]:
    return sorted(file for file in folder.files if file.endswith(".zip") and not file.startswith("."))


def _nothing_found(folder: Folder, environment_id: str, pattern: str | None) -> str:
    held = _zips(folder) or [f"{name}/" for name in sorted(folder.folders)]
    found = f"it holds {', '.join(held[:8])}" if held else "it holds no zip files"
    names = f"rl_model_<step>_steps.zip, {path_segment(environment_id)}.zip and best_model.zip"
    looked_for = f"names like {pattern}" if pattern else f"{names}, and other names in which one number varies,"
    advice = "Give one's path" if pattern else "Give one's path, or --checkpoint-pattern"
    return f"No checkpoints of {environment_id} in {folder.path!r}: {looked_for} were looked for, {found}. {advice}."
