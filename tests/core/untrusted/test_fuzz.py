"""Every reader of others' bytes, on bytes that were changed at random: a line that names the file, or a value.

Nothing is executed (a canary's name is among what is written into the files), nothing raises but our own errors, and no
example takes long. ``FUZZ_SECONDS`` is spent on each reader; ``make soak`` gives it more.
"""

import io
import json
import os
import pickle
import random
import sqlite3
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rlhfblender_core.checkpoints.contents import read_contents
from rlhfblender_core.checkpoints.settings import SettingsFile, agent_settings
from rlhfblender_core.dataset.action_labels import read_picture
from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.errors import RLHFBlenderError
from rlhfblender_core.export.minari.episodes import minari_fields
from rlhfblender_core.export.rlhfblender.arrays import write_server_episode
from rlhfblender_core.import_data.arrays import open_members, read_numbers
from rlhfblender_core.import_data.columns import convert_columns
from rlhfblender_core.import_data.pictures import convert_thumbnail, convert_video
from rlhfblender_core.import_data.source_database import database_fault, find_database, read_facts
from rlhfblender_core.registry import open_existing_registry
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.untrusted.npz import open_arrays, reading_arrays
from rlhfblender_core.untrusted.vecnormalize import read_statistics
from rlhfblender_core.untrusted.weights import scan_weights
from tests.support.environments_for_tests.counting import Counting
from tests.support.generating import generate, request
from tests.support.making_sources import episode_arrays, make_database, write_video
from tests.support.verifying import database

SECONDS = float(os.environ.get("FUZZ_SECONDS", "1"))
_SLOWEST = 5.0
#: Opcodes, names and structures that change what a reader does, more often than chance would.
_TOKENS = (
    b"cos\nmkdir\n", b"\x85R.", b"}b", b"0", b"(", b"((((", b"t", b"\x94", b"h\x00", b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"[" * 400, b"{\"a\":" * 99,
    b"*a", b"&a ", b"<<: ", b"!!python/object/apply:os.mkdir [canary]", b"%!PS-Adobe", b"-1", b"9" * 30, b"\n", b"NaN",
)  # fmt: skip

Read = Callable[[Path], object]


def saved_array(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def saved_arrays(*, is_compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if is_compressed else np.savez)(stream, allow_pickle=True, **episode_arrays())
    return stream.getvalue()


def saved_picture(image_format: str) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((24, 24), 60).convert("RGB").save(stream, image_format)
    return stream.getvalue()


def saved_statistics(folder: Path) -> bytes:
    import gymnasium as gym
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    environment = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    environment.save(str(folder / "vecnormalize.pkl"))
    environment.close()
    return (folder / "vecnormalize.pkl").read_bytes()


def saved_weights() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"a.weight": torch.zeros(4, 3), "a.bias": torch.zeros(4)}, stream)
    return stream.getvalue()


def saved_model() -> bytes:
    from gymnasium import spaces

    def serialized(value: Any) -> dict[str, str]:
        import base64

        return {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(value)).decode()}

    from stable_baselines3.common.policies import ActorCriticPolicy

    data = {
        "policy_class": serialized(ActorCriticPolicy),
        "policy_kwargs": serialized({"net_arch": {"pi": [4], "vf": [4]}}),
        "observation_space": serialized(spaces.Box(-1, 1, (3,))), "action_space": serialized(spaces.Discrete(2)),
        "n_epochs": 1, "clip_range": 1, "gae_lambda": 1, "n_steps": 1, "use_sde": False,
    }  # fmt: skip
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", saved_weights())
    return stream.getvalue()


def saved_database(folder: Path) -> bytes:
    folder.mkdir()
    return make_database(folder).read_bytes()


def saved_registry(folder: Path) -> bytes:
    from rlhfblender_core.registry import EnvironmentRecord, open_registry

    file = folder / "registry.db"
    with open_registry(f"sqlite:///{file}") as registry:
        registry.ensure_environment(EnvironmentRecord(env_id="E-v0"))
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file.read_bytes()


def saved_episode(folder: Path) -> bytes:
    root = open_data_root(str(folder))
    generate(root, database(root), request(1))
    return (folder / "episodes/E/random/0.npz").read_bytes()


def read_for_minari(file: Path) -> None:
    minari_fields(file, Counting().observation_space)


MANIFEST = json.dumps(
    {"format_version": 1, "experiment": "E", "checkpoint": "1", "step": 1, "episode": 0, "environment": {"id": "E-v0"}}
).encode()
SETTINGS = b"!!python/object/apply:collections.OrderedDict\n- - [n_envs, 4]\n  - [normalize, 'dict(norm_obs=True)']\n"


def read_columns(file: Path) -> None:
    with open_members(file, file.name) as members:
        convert_columns(members, file.parent).close()


def read_rewards(file: Path) -> None:
    with reading_arrays(file.name), open_arrays(file, file.name) as arrays:
        np.cumsum(arrays["rewards"], dtype=np.float64)


def read_registry(file: Path) -> None:
    registry = open_existing_registry(f"sqlite:///{file}")
    if registry is not None:
        with registry:
            registry.find_environment("E-v0")


def read_source_database(file: Path) -> None:
    database_fault(file)
    find_database(file.parent)
    read_facts(file, 1, "Made-v0")


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    folder = tmp_path_factory.mktemp("honest")
    write_video(folder / "0.mp4", 3)
    return {
        "model": saved_model(), "weights": saved_weights(), "settings": SETTINGS,
        "statistics": saved_statistics(folder),
        "npz": saved_arrays(is_compressed=False), "compressed npz": saved_arrays(is_compressed=True),
        "npy": saved_array(np.arange(6.0)), "object npy": saved_array(np.array([1, 2.5, 3], object)),
        "exported npz": (own := saved_episode(folder / "own")), "minari npz": own, "curve": own,
        "png": saved_picture("PNG"), "jpeg": saved_picture("JPEG"), "gif": saved_picture("GIF"),
        "webp": saved_picture("WEBP"), "bmp": saved_picture("BMP"), "video": (folder / "0.mp4").read_bytes(),
        "database": saved_database(folder / "source"), "manifest": MANIFEST, "registry": saved_registry(folder),
    }  # fmt: skip


READERS: Mapping[str, tuple[str, Read]] = {
    "model": ("0.zip", read_contents),
    "weights": ("policy.pth", lambda file: scan_weights(file, "policy.pth", file.read_bytes())),
    "statistics": ("vecnormalize.pkl", read_statistics),
    "settings": ("config.yml", lambda file: agent_settings(SettingsFile(file.name, file.read_bytes()), None, None)),
    "npz": ("0.npz", read_columns),
    "compressed npz": ("0.npz", read_columns),
    "exported npz": ("0.npz", lambda file: write_server_episode(file, file.with_suffix(".out.npz"), is_random=False)),
    "minari npz": ("0.npz", read_for_minari),
    "curve": ("0.npz", read_rewards),
    "npy": ("0.npy", lambda file: read_numbers(file, file.name)),
    "object npy": ("0.npy", lambda file: read_numbers(file, file.name)),
    "png": ("0.png", lambda file: convert_thumbnail(file, file.with_suffix(".out.png"), file.name)),
    "jpeg": ("0.jpg", lambda file: convert_thumbnail(file, file.with_suffix(".out.png"), file.name)),
    "gif": ("0.gif", read_picture),
    "webp": ("0.webp", read_picture),
    "bmp": ("0.bmp", read_picture),
    "video": ("0.mp4", lambda file: convert_video(file, file.with_suffix(".out.mp4"), 3, file.name)),
    "database": ("rlhfblender.db", read_source_database),
    "manifest": ("0.json", lambda file: parse_manifest(file.read_bytes(), file.name)),
    "registry": ("registry.db", read_registry),
}


def changed(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bits flipped, parts cut out, doubled or exchanged, or tokens written into it."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(made) + 1)
        length = chance.choice((1, 4, 16, 200))
        match chance.randrange(6):
            case 0 | 1 if made:
                made[place % len(made)] ^= 1 << chance.randrange(8)
            case 2:
                del made[place : place + length]
            case 3:
                made[place:place] = made[place : place + length]
            case 4:
                token = chance.choice(_TOKENS)
                made[place : place + len(token) * chance.randrange(2)] = token
            case _:
                made = made[: max(place, 1)] if chance.random() < 0.1 else made
    return bytes(made)


def check(read: Read, file: Path, content: bytes) -> None:
    """Reads the bytes; what they raise must be ours, one line, and soon."""
    file.write_bytes(content)
    start = time.process_time()
    try:
        read(file)
    except RLHFBlenderError as error:
        message = str(error)
        assert "\n" not in message
        assert file.name in message
    assert time.process_time() - start < _SLOWEST
    assert not Path("canary").exists()


@pytest.mark.parametrize("kind", READERS)
def test_changed_bytes_never_give_a_traceback(
    kind: str, honest: Mapping[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, read = READERS[kind]
    seed = random.randrange(2**32)
    chance, end = random.Random(seed), time.monotonic() + SECONDS
    if kind != "manifest":  # the digest in it is its own test's
        read_first = tmp_path / name
        read_first.write_bytes(honest[kind])
        read(read_first)
    while time.monotonic() < end:
        content = changed(honest[kind], chance)
        try:
            check(read, tmp_path / name, content)
        except BaseException as error:
            kept = tmp_path / f"found-{name}"
            kept.write_bytes(content)
            error.add_note(f"seed {seed}; the file is kept as {kept}")
            raise


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind not in ("video", "registry", "database")])
@given(content=st.binary(max_size=300))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_never_give_a_traceback(kind: str, tmp_path: Path, content: bytes) -> None:
    name, read = READERS[kind]
    check(read, tmp_path / name, content)


@pytest.mark.soak
def test_changed_bytes_never_give_a_traceback_for_long(
    honest: Mapping[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.core.untrusted.test_fuzz.SECONDS", 60.0)
    for kind in READERS:
        test_changed_bytes_never_give_a_traceback(kind, honest, tmp_path, monkeypatch)
