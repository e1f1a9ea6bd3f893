"""Commands on an S3 server whose connections drop, for a share of requests or for good from a random one on.

Each ends well or with what is wrong and exit code 1, leaves nothing half published, and the same command finishes it.
"""

import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tasks.retries
from rlhfblender_core.storage import DataRoot, list_sizes, open_data_root, publish_many_bytes, read_many
from tests.storage.conftest import make_bucket, use
from tests.support.fault_proxy import FaultProxy
from tests.support.making_sources import make_documented, write_picture
from tests.support.servers import ObjectStorage

pytestmark = [
    pytest.mark.xdist_group("object-storage"),
    pytest.mark.usefixtures("prefect"),
    pytest.mark.timeout(3600),
]

_SOAK = pytest.mark.soak
_FORMATS = ("rlhfblender", "minari", "lerobot", "datasets", "hdf5")
_DRAWING = ("--env", "Drawing-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.counting:Drawing")
#: A deed that is done in full says so when it is asked for again.
_DONE_BEFORE = "There is no experiment"
CommandLine = Callable[..., Any]
Contents = Callable[[DataRoot], dict[str, str]]


def generate(*others: object) -> tuple[object, ...]:
    """The command that makes the data set."""
    return ("generate", *_DRAWING, "--random", "--exp", "E", "--num-episodes", 3, "--runner", "inprocess", *others)


@dataclass(frozen=True)
class Place:
    """A data set on S3, of which each try has a copy.

    Attributes:
        root: straight to the server.
        folder: of what is local: the registry, a source, an export.
    """

    root: DataRoot
    folder: Path

    def damage(self) -> None:
        """Breaks a file of each episode, one of them its manifest."""
        paths = ["renders/E/random/0.mp4", "manifests/E/random/1.json", "rewards/E/random/2.npy"]
        publish_many_bytes(self.root, dict.fromkeys(paths, b"x"))


def _source(folder: Path) -> Path:
    source = make_documented(folder / "source", episodes=3)
    for name in ("0_left.png", "1_right.png"):
        write_picture(source / "action_labels" / "Made-v0" / name)
    return source


def _import(place: Place) -> tuple[object, ...]:
    return ("import_data", _source(place.folder), "--exp", "Theirs", "--env", "Made-v0")


def _merge(place: Place) -> tuple[object, ...]:
    """Merges the data set on S3 into a local one."""
    return ("import_data", place.root.url, "--data-root", place.folder / "merged")


def _repair(place: Place) -> tuple[object, ...]:
    place.damage()
    return ("verify", "--repair")


def _export(to: str) -> Callable[[Place], tuple[object, ...]]:
    return lambda place: ("export", place.folder / "export", "--to", to, "--exp", "E")


DEEDS: dict[str, Callable[[Place], tuple[object, ...]]] = {
    "repair": _repair,
    "import": _import,
    "merge": _merge,
    "delete": lambda _: ("delete", "--exp", "E", "--yes"),
    "overwrite": lambda _: generate("--overwrite", "--seed", 5),
    **{f"export to {to}": _export(to) for to in _FORMATS},
}


@pytest.fixture
def new_place(
    s3: ObjectStorage,
    fault_proxy: FaultProxy,
    command_line: CommandLine,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[[str], Place]:
    """Copies the data set to a new place, at which the commands look from then on, through the proxy."""
    bucket = make_bucket(s3, request.node.nodeid)
    monkeypatch.setattr(tasks.retries, "_PATIENCE_S", 1.0)
    monkeypatch.setenv("RLHFBLENDER_TRUSTED_PACKAGES", "tests")
    made = tmp_path / "made"
    monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", str(made))
    assert command_line(*generate()).code == 0
    use(s3, monkeypatch, s3.behind(fault_proxy.url))
    options = {"config_kwargs": {"read_timeout": 2, "retries": {"mode": "standard", "total_max_attempts": 2}}}
    monkeypatch.setenv("RLHFBLENDER_STORAGE_OPTIONS", json.dumps(options))

    def make(name: str) -> Place:
        folder, url = tmp_path / name, f"{bucket}/{name}"
        folder.mkdir()
        shutil.copy(made / "rlhfblender.db", folder)
        place = Place(open_data_root(url, {"endpoint_url": s3.endpoint}), folder)
        files = [path for path in made.rglob("*") if path.is_file() and not path.name.startswith("rlhfblender.db")]
        publish_many_bytes(place.root, {str(path.relative_to(made)): path.read_bytes() for path in files})
        monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", url)
        monkeypatch.setenv("RLHFBLENDER_DATABASE_URL", f"sqlite:///{folder / 'rlhfblender.db'}")
        return place

    return make


def no_manifest_lies(root: DataRoot) -> None:
    """Every file that a manifest names is there, and the one that it names; damage of ours is told by its content."""
    for name in (name for folder in ("E/random", "Theirs/5000") for name in list_sizes(root, f"manifests/{folder}")):
        for folder in ("E/random", "Theirs/5000"):
            contents = read_many(root, [f"manifests/{folder}/{name}"])
            for content in contents.values():
                if content == b"x":
                    continue
                records = json.loads(content)["artifacts"].values()
                files = read_many(root, [record["path"] for record in records])
                for record in records:
                    found = files.get(record["path"])
                    assert found == b"x" or hashlib.sha256(found or b"").hexdigest() == record["sha256"], record


def local_files(folder: Path) -> dict[str, str]:
    """What an export has, by path, but for its databases and notes, which hold times."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix not in (".hdf5", ".db") else ""
        for name, path in found.items()
        if not re.search(r"\.rlhfblender-export|rlhfblender\.db|\.lock$", name)
    }


def ends_well_or_says_why(result: Any) -> None:
    """No traceback, no other exit code, and one line where something went wrong."""
    assert result.code in (0, 1), result
    assert "Traceback" not in result.out + result.err, result
    errors = [line for line in result.err.splitlines() if not re.match(r"\d+/\d+ episodes", line)]
    assert len(errors) <= 1, result
    if result.code:
        assert errors or result.out, result
    else:
        assert errors == [], result


@pytest.mark.parametrize("count", [pytest.param(20, id="twenty times", marks=_SOAK)])
@pytest.mark.parametrize("name", DEEDS)
def test_commands_on_dropped_connections(
    name: str,
    count: int,
    new_place: Callable[[str], Place],
    fault_proxy: FaultProxy,
    command_line: CommandLine,
    contents: Contents,
) -> None:
    chance, codes = random.Random(name), []
    whole = new_place("whole")
    deed = DEEDS[name](whole)
    fault_proxy.requests.clear()
    assert command_line(*deed).code == 0
    requests = len(fault_proxy.requests)
    for number in range(count):
        place = new_place(f"{number}")
        deed = DEEDS[name](place)
        before = contents(place.root)
        fault_proxy.requests.clear()
        if number % 2:
            fault_proxy.lasts = chance.randint(0, requests)
        else:
            fault_proxy.share = chance.choice([0.1, 0.3])
        result = command_line(*deed)
        ends_well_or_says_why(result)
        codes.append(result.code)
        fault_proxy.lasts, fault_proxy.share = None, 0.0
        no_manifest_lies(place.root)
        if not name.startswith(("repair", "delete", "overwrite")):
            assert before.items() <= contents(place.root).items()
        if not (name == "delete" and result.code == 0):
            again = command_line(*deed)
            assert again.code == 0 or (name == "delete" and _DONE_BEFORE in again.err), (result, again)
        assert contents(place.root) == contents(whole.root), result
        for made in ("export", "merged"):
            assert local_files(place.folder / made) == local_files(whole.folder / made), result
        if name != "merge":
            assert name == "delete" or command_line("verify").code == 0
    assert 1 in codes  # else the faults hurt nobody
