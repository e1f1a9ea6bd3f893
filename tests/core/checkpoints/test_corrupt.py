"""Damaged, foreign and oversize files: one line each, never a traceback, never a hang."""

import contextlib
import io
import json
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhfblender_core.checkpoints import CheckpointFile, Companions, fetch_checkpoint, load_agent
from rlhfblender_core.checkpoints.settings import SettingsFile, agent_settings
from rlhfblender_core.errors import CheckpointNotUsableError, RequestError
from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError, load_inert


def use(path: Path, model: Any, **companions: str) -> str | None:
    """None if it loads, else the one line that says why not."""
    try:
        ref = fetch_checkpoint(CheckpointFile("final", None, str(path), Companions(**companions)), path.parent / "c")
        policy = load_agent(ref, model.observation_space, model.action_space, deterministic=True)
        policy.reset(0)
        policy.act(model.observation_space.sample())
    except RequestError as error:
        return one_line_of(error)
    return None


def one_line_of(error: RequestError) -> str:
    message = str(error)
    assert "\n" not in message
    return message


def rezipped(model: Any, path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(model.path) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, members.get(name, old.read(name)))
    return path


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_truncated_zip_is_refused(trained, tmp_path, share):
    model = trained("PPO")
    content = model.path.read_bytes()
    path = tmp_path / "cut.zip"
    path.write_bytes(content[: int(share * len(content))])
    assert "no intact zip" in (use(path, model) or "")


@pytest.mark.parametrize("part", range(4))
def test_flipped_bits_never_give_a_traceback(trained, tmp_path, part):
    """200 places in all; what still loads was flipped where it doesn't matter, such as a date."""
    model = trained("PPO")
    content = model.path.read_bytes()
    chance = random.Random(part)
    path = tmp_path / "flipped.zip"
    for _ in range(50):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        use(path, model)


def test_flipped_bits_behind_an_honest_checksum_never_give_a_traceback(trained, tmp_path):
    model = trained("PPO")
    chance = random.Random(1)
    with zipfile.ZipFile(model.path) as archive:
        held = {name: archive.read(name) for name in ("data", "policy.pth")}
    for number in range(200):
        name = ("data", "policy.pth")[number % 2]
        flipped = bytearray(held[name])
        # Headers and pickles are at the start of the weights; numbers may be anything.
        flipped[chance.randrange(min(len(flipped), 4000))] ^= 1 << chance.randrange(8)
        use(rezipped(model, tmp_path / "flipped.zip", **{name: bytes(flipped)}), model)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no intact zip"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no intact zip"),
        (pickle.dumps({"a": 1}), "no intact zip"),
        (b"PK\x05\x06" + bytes(18), "is no Stable-Baselines3 model: data and policy.pth missing, it holds nothing"),
    ],
)
def test_other_kinds_of_files_are_refused(trained, tmp_path, content, problem):
    path = tmp_path / "other.zip"
    path.write_bytes(content)
    assert problem in (use(path, trained("PPO")) or "")


def test_folder_named_like_a_zip_is_refused(trained, tmp_path):
    path = tmp_path / "folder.zip"
    path.mkdir()
    assert use(path, trained("PPO")) is not None


def test_missing_file_is_refused(trained, tmp_path):
    assert "nothing at" in (use(tmp_path / "none.zip", trained("PPO")) or "")


def test_foreign_zip_is_refused_with_what_it_holds(trained, tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", b"x")
    assert "it holds holiday.jpg" in (use(path, trained("PPO")) or "")


def test_names_within_a_file_can_not_break_the_line_or_the_terminal(trained, tmp_path):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\nb\x1b[31m", b"x")
    message = use(path, trained("PPO")) or ""
    assert message.isprintable()


def test_zip_bomb_is_refused(trained, tmp_path):
    model = trained("PPO")
    path = rezipped(model, tmp_path / "bomb.zip", zipfile.ZIP_DEFLATED, data=b" " * 50_000_000 + b"{}")
    assert "zip bomb" in (use(path, model) or "")


def test_huge_sparse_file_is_refused_at_once(trained, tmp_path):
    path = tmp_path / "huge.zip"
    with path.open("wb") as stream:
        stream.truncate(20 * 2**30)
    start = time.monotonic()
    assert "bytes" in (use(path, trained("PPO")) or "")
    assert time.monotonic() - start < 5


def test_weights_that_claim_more_than_they_have_are_refused(trained, tmp_path):
    """Torch reserves what a file claims: a few bytes could ask for all memory."""
    import torch

    model = trained("PPO")
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save({"a": torch.zeros(1000)}, buffer, _use_new_zipfile_serialization=not legacy)
        content = buffer.getvalue()
        assert content.count(struct.pack("<BH", ord("M"), 1000)) >= 2
        # The pickle's BININT2 1000: number of elements, and the shape.
        lying = content.replace(struct.pack("<BH", ord("M"), 1000), struct.pack("<BH", ord("M"), 60000))
        if not legacy:
            lying = with_right_checksums(content, lying)
        message = use(rezipped(model, tmp_path / "lying.zip", **{"policy.pth": lying}), model) or ""
        assert "fewer numbers than it claims" in message


def with_right_checksums(original: bytes, changed: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            start = info.header_offset + 30
            name, extra = struct.unpack("<HH", original[start - 4 : start])
            start += name + extra
            new.writestr(info.filename, changed[start : start + info.file_size])
    return out.getvalue()


def test_network_far_larger_than_its_weights_is_refused(trained, tmp_path):
    model = trained("PPO")
    with zipfile.ZipFile(model.path) as archive:
        data = json.loads(archive.read("data"))
    data["policy_kwargs"] = {"net_arch": [200_000, 200_000]}
    path = rezipped(model, tmp_path / "large.zip", data=json.dumps(data).encode())
    assert "policy_kwargs asks for layers of 200,000" in (use(path, model) or "")


@pytest.mark.parametrize("kwargs", [{"n_critics": 5000}, {"n_lstm_layers": 5000}, {"net_arch": [9000, 9000] * 20}])
def test_network_with_far_more_layers_than_its_weights_is_refused(trained, tmp_path, kwargs):
    model = trained("PPO")
    with zipfile.ZipFile(model.path) as archive:
        data = json.loads(archive.read("data"))
    data["policy_kwargs"] = kwargs
    assert "policy_kwargs asks for" in (
        use(rezipped(model, tmp_path / "x.zip", data=json.dumps(data).encode()), model) or ""
    )


def test_weights_of_another_policy_are_refused(trained, tmp_path):
    model, other = trained("PPO"), trained("A2C")
    with zipfile.ZipFile(other.path) as archive:
        weights = archive.read("policy.pth")
    message = use(rezipped(model, tmp_path / "mixed.zip", **{"policy.pth": weights}), model)
    assert "PPO" in (message or "")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"policy_class": 3}'])
def test_damaged_data_is_refused(trained, tmp_path, data):
    model = trained("PPO")
    assert use(rezipped(model, tmp_path / "bad.zip", data=data), model) is not None


def test_file_that_changes_between_fetch_and_load_is_refused(trained, tmp_path):
    model = trained("PPO")
    path = tmp_path / "model.zip"
    path.write_bytes(model.path.read_bytes())
    ref = fetch_checkpoint(CheckpointFile("final", None, str(path)), tmp_path)
    path.write_bytes(trained("A2C").path.read_bytes())
    with pytest.raises(CheckpointNotUsableError, match="was changed"):
        load_agent(ref, model.observation_space, model.action_space, deterministic=True)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps([1, 2]), pickle.dumps(np.zeros(3))])
def test_damaged_statistics_are_refused(trained, tmp_path, content):
    file = tmp_path / "vecnormalize.pkl"
    file.write_bytes(content)
    assert "vecnormalize.pkl" in (use(trained("PPO").path, trained("PPO"), vecnormalize=str(file)) or "")


#: Twenty-two lists of nine references each: 9**22 values in a few hundred bytes.
BOMB = b"a: &a [1]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 120))
DAMAGED_SETTINGS = (
    b"- 1\n",
    b"a: [",
    b"\x00\x01",
    b"text",
    b"frame_stack: many\n",
    b"normalize: dict(__import__('os'))\n",
    b"env_wrapper: 5\n",
    b"env_kwargs: [1]\n",
    b"a: &a [" + b"[" * 5000,
    b"x" * 2_000_000,
    BOMB + b"env_wrapper: *w\n",
)


@pytest.mark.parametrize("content", DAMAGED_SETTINGS, ids=range(len(DAMAGED_SETTINGS)))
def test_damaged_settings_are_refused(trained, tmp_path, content):
    file = tmp_path / "config.yml"
    file.write_bytes(content)
    assert "config.yml" in (use(trained("PPO").path, trained("PPO"), config=str(file)) or "")


def test_memo_index_can_not_reserve_memory():
    """Python's own unpickler makes room for as many entries as the largest index says: 32 GiB here."""
    tracemalloc.start()
    assert load_inert(b"\x80\x02Nr\xff\xff\xff\x7f.") is None
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@given(content=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_plain_value_or_refused(content):
    with contextlib.suppress(DamagedPickleError, RefusedPickleError):
        load_inert(b"\x80\x04" + content + b".")


@given(place=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 10_000))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_pickles_are_a_plain_value_or_refused(place, value, cut):
    from gymnasium import spaces

    space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.MultiDiscrete([2, 3])}, seed=1)
    content = bytearray(pickle.dumps(space))
    content[place % len(content)] = value
    with contextlib.suppress(DamagedPickleError, RefusedPickleError):
        load_inert(bytes(content[: len(content) - cut % 50]))


@given(text=st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_as_settings_is_understood_or_refused(text):
    try:
        agent_settings(SettingsFile("config.yml", text.encode(errors="replace")), None, None)
    except CheckpointNotUsableError as error:
        one_line_of(error)
