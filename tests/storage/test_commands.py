"""The real command lines, with Prefect, on real servers of object storage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.storage import DataRoot, publish_bytes, publish_files, read_bytes, remove_files

_SLOW = [pytest.param(name, marks=pytest.mark.soak) for name in ("seaweedfs", "azurite", "fake-gcs")]
pytestmark = [
    pytest.mark.xdist_group("object-storage"),
    pytest.mark.usefixtures("prefect"),
    pytest.mark.parametrize("storage", ["moto", *_SLOW], indirect=True),
]

Contents = Callable[[DataRoot], dict[str, str]]
CommandLine = Callable[..., Any]
COUNTING = (
    "--env",
    "Counting-v0",
    "--env-gym-entrypoint",
    "tests.support.environments_for_tests.counting:Counting",
    "--random",
)


@pytest.fixture
def on_storage(root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    """The data root of the commands, by the usual variables."""
    monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", root.url)
    monkeypatch.setenv("RLHFBLENDER_DATABASE_URL", f"sqlite:///{tmp_path / 'registry.db'}")
    return root


@pytest.mark.soak
def test_all_commands_work_on_object_storage(
    on_storage: DataRoot, command_line: CommandLine, contents: Contents, step_count: Callable[[], int], tmp_path: Path
) -> None:
    generate = (*COUNTING, "--exp", "E", "--num-episodes", 3, "--runner", "inprocess")
    assert command_line("generate", *generate).code == 0
    made, steps = contents(on_storage), step_count()
    assert len(made) == 3 * 6
    again = command_line("generate", *generate)
    assert (again.code, step_count(), contents(on_storage)) == (0, steps, made)
    assert again.out.splitlines()[1].split()[:3] == ["random", "0", "3"]
    remove_files(on_storage, ["renders/E/random/1.mp4"])
    one = command_line("generate", *generate)
    assert (one.code, contents(on_storage)) == (0, made)
    assert one.out.splitlines()[1].split()[:3] == ["random", "1", "2"]

    flipped = bytearray(read_bytes(on_storage, "episodes/E/random/2.npz"))
    flipped[100] ^= 1
    publish_bytes(on_storage, "episodes/E/random/2.npz", bytes(flipped))
    found = command_line("verify")
    assert found.code == 1
    assert found.out.splitlines()[0].startswith("episodes/E/random/2.npz: has other content")
    assert command_line("verify", "--repair").code == 0
    assert contents(on_storage) == made

    assert command_line("gallery").code == 0
    assert command_line("export", tmp_path / "server", "--exp", "E").code == 0
    assert command_line("delete", "--exp", "E", "--yes").code == 0
    assert all(path.startswith("gallery/") for path in contents(on_storage))


def test_checkpoints_come_from_object_storage(
    on_storage: DataRoot, command_line: CommandLine, trained_cartpole: Path, tmp_path: Path
) -> None:
    copies = {}
    for file in trained_cartpole.iterdir():
        copy = tmp_path / file.name
        copy.write_bytes(file.read_bytes())
        copies[f"models/cartpole/{file.name}"] = copy
    publish_files(on_storage, copies)
    models = on_storage.display_url("models/cartpole")
    trained = ("--env", "CartPole-v1", "--model-path", models, "--exp", "T", "--no-render", "--runner", "inprocess")
    result = command_line("generate", *trained, "--checkpoints", 128, -1, "--num-episodes", 1)
    assert result.code == 0, result.err
    assert [line.split()[0] for line in result.out.splitlines()[1:3]] == ["128", "final"]
    missing = command_line("generate", *trained, "--checkpoints", 4, "--num-episodes", 1)
    assert (missing.code, missing.out) == (2, "")
    assert missing.err == "error: There is no checkpoint '4'. Those that exist: 128, 256, final.\n"
