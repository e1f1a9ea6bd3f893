"""Deleting takes exactly what was asked for, manifests first, and can be finished by the same command."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.selection import parse_selection
from rlhfblender_core.delete import Deletion, delete_checkpoint, finish_deletion, plan_deletion
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.claiming import claim_and_die, under_way
from tests.support.generating import generate, request
from tests.support.verifying import problems, repair

Snapshot = Callable[[Path], dict[str, str]]


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Experiment E, and F with the same files."""
    root = open_data_root(str(tmp_path / "data"))
    generate(root, database(root), request(2))
    generate(root, database(root), request(2, exp="F", register_only=True))
    for folder in root.local_folder.glob("*/E"):
        shutil.copytree(folder, folder.with_name("F"))
    return root


def database(root: DataRoot) -> str:
    return f"sqlite:///{root.local_folder / 'rlhfblender.db'}"


def plan(
    root: DataRoot, *checkpoints: str, episodes: str | None = None, where: str | None = None, experiment: str = "E"
) -> Deletion:
    with open_registry(database(root)) as registry:
        return plan_deletion(root, registry, experiment, checkpoints, parse_selection(episodes, where))


def carry_out(root: DataRoot, deletion: Deletion) -> None:
    with open_registry(database(root)) as registry:
        for checkpoint in deletion.checkpoints:
            delete_checkpoint(root, registry, checkpoint)
        finish_deletion(registry, deletion)


def test_an_experiment_goes_and_others_and_the_environment_stay(root: DataRoot, snapshot: Snapshot) -> None:
    before = snapshot(root.local_folder)
    deletion = plan(root)
    assert "experiment E (random): 2 episodes, 12 files" in deletion.summary
    assert snapshot(root.local_folder) == before
    carry_out(root, deletion)
    assert snapshot(root.local_folder) == {path: digest for path, digest in before.items() if "/E/" not in path}
    assert not list(root.local_folder.glob("*/E"))
    with open_registry(database(root)) as registry:
        assert registry.find_experiment("E") is None
        assert registry.find_experiment("F") is not None
        assert registry.find_environment("Counting-v0") is not None
    with pytest.raises(InvalidParameterError, match="There is no experiment 'E'"):
        plan(root)


def test_a_deletion_that_was_killed_is_finished_by_the_same_command(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("rlhfblender_core.delete")
    remove_files = module.remove_files
    calls = []

    def die_at_the_second_call(where: DataRoot, paths: object) -> None:
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        remove_files(where, paths)

    monkeypatch.setattr(module, "remove_files", die_at_the_second_call)
    with pytest.raises(KeyboardInterrupt):
        carry_out(root, plan(root))
    monkeypatch.undo()
    assert not list((root.local_folder / "manifests/E").glob("*/*"))
    assert list((root.local_folder / "renders/E").glob("*/*"))
    carry_out(root, plan(root))
    assert not list(root.local_folder.glob("*/E"))


def test_a_checkpoint_goes_alone_and_an_unknown_one_is_named(root: DataRoot) -> None:
    carry_out(root, plan(root, "random"))
    with open_registry(database(root)) as registry:
        assert registry.find_experiment("E") is not None
        assert registry.list_checkpoints("E") == []
    with pytest.raises(InvalidParameterError, match="has no checkpoint '300'"):
        plan(root, "300")


def numbers_left(root: DataRoot) -> tuple[set[str], list[int]]:
    """Of the files of E, and of its rows."""
    with open_registry(database(root)) as registry:
        rows = [row.number for row in registry.list_episodes("E")]
    return {path.stem for path in root.local_folder.glob("*/E/random/*")}, rows


def test_episodes_go_by_number_and_the_others_are_sound(root: DataRoot) -> None:
    generate(root, database(root), request(7))
    deletion = plan(root, episodes="1,4-5,90-99")
    assert deletion.summary.startswith(
        "episodes (--episodes 1,4-5,90-99) of experiment E (random): 3 episodes, 18 files"
    )
    carry_out(root, deletion)
    assert numbers_left(root) == ({"0", "2", "3", "6"}, [0, 2, 3, 6])
    assert [line for line in problems(root, database(root)) if "F" not in line] == []
    with pytest.raises(InvalidParameterError, match="No episode of experiment 'E' is chosen by --episodes 1,4-5"):
        plan(root, episodes="1,4-5")


def test_episodes_go_by_a_condition_on_what_their_rows_or_manifests_say(root: DataRoot) -> None:
    generate(root, database(root), request(5))
    with open_registry(database(root)) as registry:
        seeds = {row.number: row.seed for row in registry.list_episodes("E")}
        registry.forget_episodes("E", "random", [2])  # only its manifest tells
    where = f"seed in ({seeds[1]}, {seeds[2]}, {seeds[4]})"
    deletion = plan(root, where=where, episodes="0-3")
    assert (deletion.checkpoints[0].episodes, deletion.checkpoints[0].files) == (2, 10)
    carry_out(root, deletion)
    assert numbers_left(root) == ({"0", "3", "4"}, [0, 3, 4])
    with pytest.raises(InvalidParameterError, match="is chosen by --where 'return > 1e9'"):
        plan(root, where="return > 1e9")


@pytest.mark.parametrize("episodes", ["0-99", None])
@pytest.mark.parametrize(
    "name",
    ["renders/E/random/holiday.mp4", "episodes/E/random/7.npz", "episodes/E/random/0.NPZ", "episodes/E/random/0.mp4"],
)
def test_files_of_others_stay_where_episodes_go(root: DataRoot, episodes: str | None, name: str) -> None:
    strange = root.local_folder / name
    strange.write_bytes(b"?")
    assert plan(root, episodes=episodes).checkpoints[0].files == 10
    carry_out(root, plan(root, episodes=episodes))
    assert list(root.local_folder.glob("*/E/*/*")) == [strange]


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_deletion_by_condition_that_was_killed_is_finished_by_the_same_command(
    calls: int, root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("rlhfblender_core.delete")
    remove_files = module.remove_files
    made = []

    def die(where: DataRoot, paths: object) -> None:
        remove_files(where, paths)
        made.append(paths)
        if len(made) == calls:
            raise KeyboardInterrupt

    deletion = plan(root, where="number == 1")
    monkeypatch.setattr(module, "remove_files", die)
    with pytest.raises(KeyboardInterrupt):
        carry_out(root, deletion)
    monkeypatch.undo()
    carry_out(root, plan(root, where="number == 1"))
    assert numbers_left(root) == ({"0"}, [0])


def test_what_is_laid_where_a_deleted_episode_was_is_nobodys_whoever_claimed_it_before(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    generate(root, database(root), request(2))
    claim_and_die(root, database(root), CheckpointKey("E", "random"), [1])
    carry_out(root, plan(root, episodes="1"))
    theirs = root.local_folder / "renders/E/random/1.mp4"
    theirs.write_bytes(b"somebody's")
    repair(root, database(root))
    assert theirs.read_bytes() == b"somebody's"


def test_nothing_is_deleted_below_a_live_run(root: DataRoot) -> None:
    with under_way(root, database(root), "F"):
        plan(root)
    with under_way(root, database(root), "E"), pytest.raises(InvalidParameterError, match="A run is under way"):
        plan(root)


def test_what_was_deleted_can_be_made_again(root: DataRoot) -> None:
    carry_out(root, plan(root))
    assert generate(root, database(root), request(2)) == 2
    assert [line for line in problems(root, database(root)) if "F" not in line] == []


def test_what_a_killed_run_left_is_gone_even_if_nothing_is_left_to_delete(root: DataRoot) -> None:
    (root.local_folder / f".runs/{0:020d}-1-0000dead").mkdir(parents=True)
    with (
        pytest.raises(InvalidParameterError, match="There is no experiment"),
        open_registry(database(root)) as registry,
    ):
        plan_deletion(root, registry, "G")
    assert not (root.local_folder / ".runs").exists()


@pytest.mark.parametrize("more", ["", ",1000-2000"])
def test_deleting_a_few_episodes_lists_no_folder_and_many_do_the_same(
    more: str, root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(root, database(root), request(5))
    (root.local_folder / "renders/E/random/3.txt").write_bytes(b"somebody's")
    module = importlib.import_module("rlhfblender_core.delete")
    listed: list[str] = []
    for name in ("list_sizes", "list_names"):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda at, folder, do=function: listed.append(folder) or do(at, folder))
    deletion = plan(root, episodes=f"1,3-4{more}")
    assert (deletion.checkpoints[0].episodes, deletion.checkpoints[0].files) == (3, 15)
    carry_out(root, deletion)
    assert bool(listed) is bool(more)
    assert numbers_left(root) == ({"0", "2", "3"}, [0, 2])
    assert [path.name for path in root.local_folder.glob("*/E/random/3.*")] == ["3.txt"]
