"""The real command on an S3 server that fails for a share of requests, or for good, watched by a reader meanwhile."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tasks.retries
from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.storage import DataRoot, list_sizes, open_data_root, read_many
from tests.storage.conftest import make_bucket, use
from tests.support import generating
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import ObjectStorage

pytestmark = [pytest.mark.xdist_group("object-storage"), pytest.mark.usefixtures("prefect")]

CommandLine = Callable[..., Any]
COUNTING = ("--env", "Counting-v0", "--env-gym-entrypoint", generating.ENTRY_POINT, "--env-kwargs", "length:6")
_MANIFESTS = "manifests/E/random"
_SOAK = pytest.mark.soak


@pytest.fixture
def shaky(
    s3: ObjectStorage,
    fault_proxy: FaultProxy,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> DataRoot:
    """The data root of the commands, which they reach through the proxy; this one goes straight to the server."""
    url = make_bucket(s3, request.node.nodeid)
    straight = open_data_root(url, {"endpoint_url": s3.endpoint})
    use(s3, monkeypatch, s3.behind(fault_proxy.url))
    # Seconds for a stall would make a long test.
    options = {"config_kwargs": {"read_timeout": 2}}
    monkeypatch.setenv("RLHFBLENDER_STORAGE_OPTIONS", json.dumps(options))
    monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", url)
    monkeypatch.setenv("RLHFBLENDER_DATABASE_URL", f"sqlite:///{tmp_path / 'registry.db'}")
    return straight


@contextmanager
def read_all_the_time(root: DataRoot) -> Iterator[list[str]]:
    """What a reader finds wrong: manifests whose files are not all there as they say, at the moment they are seen."""
    wrong: list[str] = []
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        is_last = False
        while not is_last:
            is_last = stop.wait(0.05)
            for path, content in read_many(
                root, (f"{_MANIFESTS}/{name}" for name in list_sizes(root, _MANIFESTS))
            ).items():
                manifest = parse_manifest(content, path)
                files = read_many(root, [record.path for record in manifest.artifacts.values()])
                for record in manifest.artifacts.values():
                    if hashlib.sha256(files.get(record.path, b"")).hexdigest() != record.sha256:
                        wrong.append(record.path)
                seen.add(path)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield wrong
    finally:
        stop.set()
        reader.join()
    assert seen


def is_one_line(err: str) -> bool:
    """Whether a command said what is wrong in one line; those that tell how far a slow run got don't count."""
    return [line[:7] for line in err.splitlines() if not re.match(r"\d+/\d+ episodes", line)] == ["error: "]


@pytest.mark.parametrize(
    ("kinds", "share"),
    [
        pytest.param(("503", "reset", "late_reset", "cut"), 0.15, marks=_SOAK),
        *(pytest.param(kinds, 0.3, marks=_SOAK) for kinds in [("503",), ("reset", "late_reset"), ("cut",)]),
        pytest.param(("stall", "503"), 0.1, marks=_SOAK),
    ],
)
def test_a_run_ends_well_or_says_why_and_the_next_one_finishes_it(
    kinds: tuple[str, ...],
    share: float,
    shaky: DataRoot,
    fault_proxy: FaultProxy,
    command_line: CommandLine,
    contents: Callable[[DataRoot], dict[str, str]],
    snapshot: Callable[[Path], dict[str, str]],
    tmp_path: Path,
) -> None:
    generate = ("generate", *COUNTING, "--random", "--exp", "E", "--num-episodes", 8, "--runner", "inprocess")
    fault_proxy.kinds, fault_proxy.stall_s = kinds, 4.0
    with read_all_the_time(shaky) as wrong:
        fault_proxy.share = share
        for _ in range(3):
            result = command_line(*generate)
            assert result.code in (0, 1)
            assert result.code == 0 or is_one_line(result.err)
            if result.code == 0:
                break
        fault_proxy.share = 0.0
        assert command_line(*generate).code == 0
    assert fault_proxy.faults > 0
    assert wrong == []
    assert command_line("verify").code == 0
    local = open_data_root(str(tmp_path / "local"))
    generating.generate(local, f"sqlite:///{tmp_path / 'other.db'}", generating.request(8))
    assert contents(shaky) == snapshot(local.local_folder)


def test_a_server_that_is_gone_for_good_ends_the_run_with_one_line(
    shaky: DataRoot, fault_proxy: FaultProxy, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.retries, "_PATIENCE_S", 1.0)
    generate = ("generate", *COUNTING, "--random", "--exp", "E", "--num-episodes", 200, "--runner", "inprocess")
    fault_proxy.kinds = ("503",)

    def break_down() -> None:
        while not list_sizes(shaky, _MANIFESTS):
            time.sleep(0.05)
        fault_proxy.share = 1.0
        fault_proxy.requests.clear()

    accident = threading.Thread(target=break_down)
    accident.start()
    result = command_line(*generate)
    accident.join()
    assert result.code == 1
    assert is_one_line(result.err)
    assert f"error: {shaky.url} did not answer properly: " in result.err
    assert 0 < len(list_sizes(shaky, _MANIFESTS)) < 200
    assert len(fault_proxy.requests) < 1000  # not: each of 200 episodes, with all tries of all its files
    fault_proxy.share = 0.0
    assert command_line("verify").code in (0, 1)  # files that were uploaded without their manifest
