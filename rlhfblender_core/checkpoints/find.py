"""Finds the checkpoints in a folder of RL Zoo's, Stable-Baselines3's or any other trainer, local or on any storage.

Which files are models is in :mod:`.models`, what a name says in :mod:`.naming`, which checkpoints are wanted in
:mod:`.select`, fetching and reading in :mod:`.fetch`.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhfblender_core.checkpoints.listing import BY_ENTRY_POINT, Folder, is_folder, not_a_checkpoint, open_folder
from rlhfblender_core.checkpoints.looking import UNZIPPED, kinds_of
from rlhfblender_core.checkpoints.models import MEANT, Model, models_in, zips_in
from rlhfblender_core.checkpoints.naming import (
    BEST_MODEL,
    NamedModel,
    base_of,
    callback_step,
    final_model,
    named_models,
    own_step,
    stem_of,
)
from rlhfblender_core.checkpoints.resumed import TRAINING_RECORD
from rlhfblender_core.dataset.layout import FINAL
from rlhfblender_core.errors import CheckpointNotUsableError, NoCheckpointYetError
from rlhfblender_core.names import path_segment

#: How other frameworks' agents are called.
_WEIGHTS = (".ckpt", ".cleanrl_model", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors")
_MOST_LOOKED_INTO = 20
_VECNORMALIZE = ("vecnormalize.pkl", "vec_normalize.pkl")


@dataclass(frozen=True, slots=True)
class Companions:
    """URLs of an agent's other files, None where there is none.

    Attributes:
        training: how its training came about, as our trainer records it.
        pickles: files beside the model whose names don't say that they hold statistics, and that may.
    """

    args: str | None = None
    config: str | None = None
    env_kwargs: str | None = None
    vecnormalize: str | None = None
    training: str | None = None
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
        NoCheckpointYetError: a training has begun there, and has written none.
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
        if TRAINING_RECORD in folder.files and not zips_in(folder):
            raise NoCheckpointYetError(
                f"The training in {folder.path!r} has written no checkpoint yet. Run this again when it has."
            )
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
        for file in sorted(folder.files):
            if file.lower() == f"{name}.zip".lower() and file.startswith(name):
                return folder.url(file)
        close = difflib.get_close_matches(name, [*zips_in(folder), *sorted(folder.folders)], n=1)
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
        close = difflib.get_close_matches(name, zips_in(folder), n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise CheckpointNotUsableError(f"Checkpoint {url!r} is missing. {_zips_of(folder)}{meant}")
    elif not name.endswith(".zip") and kinds_of(folder, [name])[name] not in MEANT:
        raise CheckpointNotUsableError(not_a_checkpoint(url))
    named = _named_alone(folder, name, environment_id, pattern)
    return _Companionship(environment_id).checkpoint(Model(name, (folder,)), named)


def _named_alone(folder: Folder, name: str, environment_id: str, pattern: str | None) -> NamedModel:
    try:
        names = {name, *(model.name for model in models_in(folder, environment_id, levels=0))}
        among = named_models(sorted(names), environment_id, pattern)
    except CheckpointNotUsableError:  # about the others; this one was chosen
        names, among = {name}, named_models([name], environment_id, pattern)
    named = among.get(name) or NamedModel(FINAL, None)
    if len(names) > 1 or named.label != FINAL or final_model([name], environment_id):
        return named
    step = own_step(folder.path.rpartition("/")[2])  # 10000/model.zip
    return named if step is None else NamedModel(str(step), step)


def _zips_of(folder: Folder) -> str:
    return f"Its folder has {', '.join(zips_in(folder)[:8]) or 'no zip files'}."


def _in_folder(folder: Folder, environment_id: str, pattern: str | None) -> tuple[CheckpointFile, ...]:
    models = {model.name: model for model in models_in(folder, environment_id)}
    companionship = _Companionship(environment_id)
    found: dict[str, CheckpointFile] = {}
    for name, named in named_models(models, environment_id, pattern).items():
        checkpoint = companionship.checkpoint(models[name], named)
        other = found.setdefault(checkpoint.label, checkpoint)
        if other is not checkpoint:
            raise CheckpointNotUsableError(
                f"Both {other.url!r} and {checkpoint.url!r} are checkpoint {checkpoint.label}. Give the path of one, "
                "or say which names are checkpoints with --checkpoint-pattern."
            )
    return tuple(sorted(found.values(), key=lambda found: (found.step is None, found.step or 0, found.label)))


class _Companionship:
    """Finds what lies beside models. Each folder is listed once: trainings leave thousands of checkpoints."""

    def __init__(self, environment_id: str) -> None:
        self._environment_id = environment_id
        self._listed: dict[str, Folder] = {}
        self._named_like: dict[str, list[str]] = {}

    def checkpoint(self, model: Model, named: NamedModel) -> CheckpointFile:
        """The model with its companions."""
        companions, folder = self._companions(model), model.folders[0]
        steps = callback_step(stem_of(model.own_name))
        if steps is not None:
            # SB3's CheckpointCallback: <prefix>_vecnormalize_<step>_steps.pkl belongs to this step.
            own = "_".join(part for part in (steps["prefix"], "vecnormalize", steps["step"], "steps.pkl") if part)
            if own in folder.files:
                companions = replace(companions, vecnormalize=folder.url(own))
        return CheckpointFile(named.label, named.step, model.url, companions)

    def _companions(self, model: Model) -> Companions:
        """The agent's settings: nearest to the model, from its own folder to the one that was searched."""
        by_folder = [self._places(folder, stem_of(model.own_name)) for folder in model.folders]
        places = [place for held in by_folder for place in held]
        pickles = ([place.url(file) for place in held for file in may_be_pickles(place)] for held in by_folder)
        return Companions(
            args=_first(places, "args.yml"),
            config=_first(places, "config.yml"),
            env_kwargs=_first(places, "env_kwargs.yml"),
            vecnormalize=_first(places, *_VECNORMALIZE),
            training=_first(model.folders[:1], TRAINING_RECORD),
            pickles=tuple(next(filter(None, pickles), [])),
        )

    def _places(self, folder: Folder, stem: str) -> list[Folder]:
        """The subfolder named after the model or the environment, and the folder itself."""
        if folder.path not in self._named_like:
            final = _final_among(folder, self._environment_id)
            # RL Zoo's own folder of settings, where the environment asked for has another name: Pong-v4_1/Pong-v4/.
            own = re.sub(r"_\d{1,9}$", "", folder.path.rpartition("/")[2])
            self._named_like[folder.path] = [
                path_segment(self._environment_id),
                *([stem_of(final)] if final else []),
                own,
            ]
        names = dict.fromkeys([stem, *self._named_like[folder.path]])
        return [*(self._subfolder(folder, name) for name in names if name in folder.folders), folder]

    def _subfolder(self, folder: Folder, name: str) -> Folder:
        url = folder.url(name)
        if url not in self._listed:
            self._listed[url] = folder.subfolder(name)
        return self._listed[url]


def may_be_pickles(folder: Folder) -> list[str]:
    """The files of a folder whose names don't say that they are no pickles."""
    return [
        name
        for name in sorted(folder.files)
        if name.lower().endswith((".pkl", ".pickle")) or ("." not in name and "norm" in name.lower())
    ]


def _final_among(folder: Folder, environment_id: str) -> str | None:
    others = [name for name in zips_in(folder) if stem_of(name) != BEST_MODEL and not callback_step(stem_of(name))]
    try:
        return final_model(others, environment_id) or (others[0] if len(others) == 1 else None)
    except CheckpointNotUsableError:  # told where the folder's checkpoints are listed
        return None


def _first(places: Sequence[Folder], *names: str) -> str | None:
    return next((place.url(name) for place in places for name in names if name in place.files), None)


def _agent_folder(folder: Folder, environment_id: str) -> Folder:
    """The folder itself, or of RL Zoo's ``<env>_<n>`` in it the one with the highest n."""
    if zips_in(folder):
        return folder
    base = base_of(path_segment(environment_id))
    runs: list[tuple[bool, int, int, str]] = []
    for name in folder.folders:
        match = re.fullmatch(r"(?P<env>.+?)(-v(?P<version>\d{1,9}))?_(?P<run>\d{1,9})", name)
        if match and match["env"] == base:
            exact = name.rpartition("_")[0] == path_segment(environment_id)
            runs.append((exact, int(match["version"] or 0), int(match["run"]), name))
    return folder.subfolder(max(runs)[-1]) if runs else folder


def _nothing_found(folder: Folder, environment_id: str, pattern: str | None) -> str:
    held = zips_in(folder) or [f"{name}/" for name in sorted(folder.folders) if not name.startswith(".")]
    found = f"it holds {', '.join(held[:8])}" if held else "it holds no zip files"
    names = f"rl_model_<step>_steps.zip, {path_segment(environment_id)}.zip and best_model.zip"
    looked_for = f"names like {pattern}" if pattern else f"{names}, and other names in which one number varies,"
    advice = "Give one's path" if pattern else "Give one's path, or --checkpoint-pattern"
    others = _weights_in(folder)
    of_others = f" {others[0]!r} holds the weights of another framework's agent: {BY_ENTRY_POINT}." if others else ""
    return (
        f"No checkpoints of {environment_id} in {folder.path!r}: {looked_for} were looked for, {found}. "
        f"{advice}.{of_others}"
    )


def _weights_in(folder: Folder) -> list[str]:
    """Files of CleanRL's, Tianshou's and others' agents in the folder, or else in a folder in it."""
    own = sorted(name for name in folder.files if name.lower().endswith(_WEIGHTS))
    below = sorted(folder.folders)[:_MOST_LOOKED_INTO]
    return own or [
        f"{name}/{file}" for name in below for file in _weights_in(replace(folder.subfolder(name), folders=frozenset()))
    ]
