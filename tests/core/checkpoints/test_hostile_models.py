"""Models that reach for their reader or ask for more than they weigh: a line each, and the next model loads as ever."""

import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.checkpoints import CheckpointFile, Companions, fetch_checkpoint, load_agent
from rlhfblender_core.checkpoints.contents import read_contents
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.vecnormalize import read_statistics
from tests.support.hostile_files import (
    ALIASED_YAML,
    MERGING_YAML,
    bounded,
    state_of_shared_classes,
    unfolding_key,
    unfolding_pickle,
    with_data_field,
    with_members,
    with_weights_pickle,
)


def member(model: Any, name: str) -> bytes:
    with zipfile.ZipFile(model.path) as archive:
        return archive.read(name)


def weights_pickle(model: Any, folder: Path) -> bytes:
    file = folder / "policy.pth"
    file.write_bytes(member(model, "policy.pth"))
    with zipfile.ZipFile(file) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def after(content: bytes, opcode: str, inserted: bytes, number: int = 0) -> bytes:
    """The pickle with more opcodes behind the given one."""
    places = [place for found, _, place in pickletools.genops(content) if found.name == opcode]
    place = (
        places[number] + 1 if opcode != "GLOBAL" else content.index(b"\n", content.index(b"\n", places[number]) + 1) + 1
    )
    return content[:place] + inserted + content[place:]


LARGE = struct.pack("<i", 90_000)
#: What Python's unpickler gives to the ``__setstate__`` of a frozen dataclass with slots.
NEW_SHAPE = b"](J" + LARGE + b"J" + LARGE + b"tab"
NEW_NAME = b"]U\x04evilab"
IN_SLOTS = b"N}U\x05shapeK\x01sU\x04nameK\x01s\x86b"
IN_DICT = b"}U\x05shapeK\x01sb"


def outcome(path: Path) -> Any:
    """The shapes that are read; "" where the file is refused. An OrderedDict's attributes are passed over."""
    try:
        return read_contents(path).weights
    except CheckpointNotUsableError as error:
        return "" if path.name in str(error) and "\n" not in str(error) else str(error)


@pytest.mark.parametrize("state", [NEW_SHAPE, NEW_NAME, IN_SLOTS, IN_DICT], ids=["shape", "name", "slots", "dict"])
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("opcode", ["REDUCE", "GLOBAL", "BINPERSID"])
def test_one_bad_model_changes_nothing_for_the_next(trained, tmp_path, state, opcode, number):
    model = trained("PPO")
    before = state_of_shared_classes()
    changed = after(weights_pickle(model, tmp_path), opcode, state, number)
    weights = with_weights_pickle(member(model, "policy.pth"), tmp_path / "w.pth", changed)
    path = with_members(model.path, tmp_path / "bad.zip", **{"policy.pth": weights})
    assert outcome(path) in ("", read_contents(model.path).weights)
    assert state_of_shared_classes() == before
    ref = fetch_checkpoint(CheckpointFile("final", None, str(model.path), Companions()), tmp_path / "cache")
    load_agent(ref, model.observation_space, model.action_space, deterministic=True)


def test_numbers_that_are_shown_many_times_justify_no_large_network(trained, tmp_path):
    """A tensor of one number, shown as ten billion, let settings ask for 29 GB."""
    model = trained("PPO")
    content = weights_pickle(model, tmp_path)
    rebuilt = (
        b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0"
        + b"J" + LARGE + b"J" + LARGE + b"\x86K\0K\0\x86\x89ccollections\nOrderedDict\n)RtRu."
    )  # fmt: skip
    assert content != rebuilt
    weights = with_weights_pickle(member(model, "policy.pth"), tmp_path / "w.pth", rebuilt)
    path = with_members(model.path, tmp_path / "bad.zip", **{"policy.pth": weights})
    kwargs = pickle.dumps({"net_arch": [90_000, 90_000]}, 4)
    path = with_data_field(path, tmp_path / "worse.zip", "policy_kwargs", kwargs)
    with bounded(), pytest.raises(CheckpointNotUsableError, match=r"worse\.zip"):
        read_contents(path)


@pytest.mark.parametrize("width", [50_000, 5_000])
def test_settings_ask_for_no_more_than_the_weights_have(trained, tmp_path, width):
    kwargs = pickle.dumps({"net_arch": {"pi": [width] * 2, "vf": [width] * 2}}, 4)
    path = with_data_field(trained("PPO").path, tmp_path / "large.zip", "policy_kwargs", kwargs)
    with bounded(), pytest.raises(CheckpointNotUsableError, match="policy_kwargs asks for"):
        read_contents(path)


@pytest.mark.parametrize("field", ["policy_class", "policy_kwargs", "observation_space", "action_space"])
@pytest.mark.parametrize("content", [unfolding_pickle(), unfolding_key()], ids=["values", "key"])
def test_fields_that_unfold_are_refused_at_once(trained, tmp_path, field, content):
    path = with_data_field(trained("PPO").path, tmp_path / "bad.zip", field, content)
    with bounded(), pytest.raises(CheckpointNotUsableError, match=rf"bad\.zip.*{field}"):
        read_contents(path)


def test_statistics_that_unfold_are_refused_at_once(tmp_path):
    file = tmp_path / "vecnormalize.pkl"
    file.write_bytes(unfolding_pickle())
    with bounded(), pytest.raises(CheckpointNotUsableError, match=r"vecnormalize\.pkl"):
        read_statistics(file)


@pytest.mark.parametrize("text", [MERGING_YAML, ALIASED_YAML], ids=["merge keys", "aliases"])
@pytest.mark.parametrize("name", ["config", "args", "env_kwargs"])
def test_settings_files_that_unfold_are_refused_at_once(trained, tmp_path, text, name):
    file = tmp_path / f"{name}.yml"
    file.write_text(text)
    checkpoint = CheckpointFile("final", None, str(trained("PPO").path), Companions(**{name: str(file)}))
    with bounded(), pytest.raises(CheckpointNotUsableError, match=rf"{name}\.yml"):
        fetch_checkpoint(checkpoint, tmp_path / "cache")


def test_second_folder_in_weights_is_refused(trained, tmp_path):
    """Torch's reader goes by the first member's folder: it would load a pickle that wasn't looked at."""
    model = trained("PPO")
    file = tmp_path / "w.pth"
    file.write_bytes(member(model, "policy.pth"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02}.")
    path = with_members(model.path, tmp_path / "bad.zip", **{"policy.pth": file.read_bytes()})
    with pytest.raises(CheckpointNotUsableError, match="several folders"):
        read_contents(path)


def test_model_with_a_bomb_for_data_is_refused(trained, tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b'{"a": "' + bytes([65]) * (60 * 2**20) + b'"}')
        archive.writestr("policy.pth", member(trained("PPO"), "policy.pth"))
    with bounded(), pytest.raises(CheckpointNotUsableError, match=r"bomb\.zip.*zip bomb"):
        read_contents(path)
