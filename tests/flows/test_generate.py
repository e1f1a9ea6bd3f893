"""The flow and its command line, from flags to files: what is made, what is made again, and what is left alone."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.dataset.video import count_frames
from rlhfblender_core.registry import open_registry
from rlhfblender_core.rollout.seeding import episode_seed
from tests.support.soak import sampled
from tests.support.terminal import complaints

pytestmark = pytest.mark.usefixtures("prefect")

Command = Callable[..., Any]
Snapshot = Callable[[Path], dict[str, str]]
ENV = ("--env", "Mine-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.counting:Counting")
COUNTING = (*ENV, "--random", "--exp", "study")
#: Steps in three throw-away environments, two of them in a process of their own, before a run makes its episodes: three
#: at least, an episode at most.
TRIED = range(3 * 3, 3 * 5 + 1)
EVENTS = "ENVIRONMENTS_FOR_TESTS_EVENTS"


def succeeded(result: Any) -> Any:
    assert (result.code, complaints(result.err)) == (0, []), result
    return result


def row(result: Any, checkpoint: str = "random") -> list[str]:
    """Made, already there, failed."""
    (line,) = [line for line in result.out.splitlines() if line.startswith(checkpoint)]
    return line.split()[1:4]


def test_every_episode_is_whole(generate: Command, data_root: Path) -> None:
    result = succeeded(generate("--env", "CartPole-v1", "--random", "--exp", "e", "--num-episodes", 3))
    assert row(result) == ["3", "0", "0"]
    assert str(data_root) in result.out
    for n in range(3):
        manifest = json.loads((data_root / f"manifests/e/random/{n}.json").read_text())
        with np.load(data_root / f"episodes/e/random/{n}.npz", allow_pickle=False) as episode:
            length = len(episode["rewards"])
            assert {len(episode[name]) for name in ("obs", "actions", "dones", "infos", "probs")} == {length}
            cumulative = np.load(data_root / f"rewards/e/random/{n}.npy", allow_pickle=False)
            assert cumulative.tolist() == np.cumsum(episode["rewards"]).tolist()
        assert count_frames(data_root / f"renders/e/random/{n}.mp4") == length == manifest["frames"]
        assert len(np.load(data_root / f"uncertainty/e/random/{n}.npy", allow_pickle=False)) == length
        assert (data_root / f"thumbnails/e/random/{n}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in data_root.iterdir() if not path.name.startswith("rlhfblender.db")) == sorted(
        ["episodes", "manifests", "renders", "rewards", "thumbnails", "uncertainty"]
    )


def test_the_registry_knows_what_was_made(generate: Command, data_root: Path) -> None:
    succeeded(generate(*COUNTING, "--num-episodes", 2, "--project", "P", "--action-names", "a", "b", "c"))
    with open_registry(f"sqlite:///{data_root}/rlhfblender.db") as registry:
        experiment = registry.find_experiment("study")
        environment = registry.find_environment("Mine-v0")
        assert experiment is not None
        assert environment is not None
        assert (experiment.env_id, experiment.kind, experiment.project) == ("Mine-v0", "random", "P")
        assert environment.entry_point == "tests.support.environments_for_tests.counting:Counting"
        assert environment.action_names == ("a", "b", "c")
        assert [checkpoint.label for checkpoint in registry.list_checkpoints("study")] == ["random"]
    connection = sqlite3.connect(data_root / "rlhfblender.db")
    assert connection.execute("SELECT count(*) FROM episodes").fetchone() == (2,)
    connection.close()


def test_a_second_run_writes_nothing_and_takes_no_step(
    generate: Command, data_root: Path, step_count: Callable[[], int], snapshot: Snapshot
) -> None:
    succeeded(generate(*COUNTING, "--num-episodes", 4))
    assert step_count() - 4 * 5 in TRIED
    before = (
        snapshot(data_root),
        {path: path.stat().st_mtime_ns for path in data_root.rglob("*.*") if "db" not in path.name},
    )
    assert row(succeeded(generate(*COUNTING, "--num-episodes", 4))) == ["0", "4", "0"]
    assert row(succeeded(generate("--exp", "study", "--num-episodes", 2))) == ["0", "2", "0"]
    assert step_count() - 4 * 5 in TRIED
    after = (
        snapshot(data_root),
        {path: path.stat().st_mtime_ns for path in data_root.rglob("*.*") if "db" not in path.name},
    )
    assert before == after


@pytest.mark.parametrize("folder", sampled(["renders", "episodes", "manifests"], "episodes"))
def test_a_deleted_file_is_made_again_byte_for_byte_and_nothing_else_is(
    folder: str, generate: Command, data_root: Path, step_count: Callable[[], int], snapshot: Snapshot
) -> None:
    succeeded(generate(*COUNTING, "--num-episodes", 4))
    before = snapshot(data_root)
    (file,) = (data_root / folder / "study/random").glob("2.*")
    file.unlink()
    assert row(succeeded(generate(*COUNTING, "--num-episodes", 4))) == ["1", "3", "0"]
    assert step_count() - 5 * 5 in TRIED
    assert snapshot(data_root) == before


def test_asking_for_more_makes_only_the_new_ones_as_if_asked_at_once(
    generate: Command, data_root: Path, tmp_path: Path, step_count: Callable[[], int], snapshot: Snapshot
) -> None:
    succeeded(generate(*COUNTING, "--num-episodes", 10))
    assert row(succeeded(generate(*COUNTING, "--num-episodes", 20))) == ["10", "10", "0"]
    assert step_count() - 20 * 5 in TRIED
    succeeded(generate(*COUNTING, "--num-episodes", 20, "--data-root", tmp_path / "at-once"))
    assert snapshot(data_root) == snapshot(tmp_path / "at-once")


def test_bytes_are_the_same_whoever_makes_them(generate: Command, tmp_path: Path, snapshot: Snapshot) -> None:
    drawing = (
        "--env",
        "D-v0",
        "--env-gym-entrypoint",
        "tests.support.environments_for_tests.counting:Drawing",
        "--random",
    )
    hands: dict[str, tuple[object, ...]] = {
        "here": ("--runner", "inprocess"),
        "one": ("--runner", "process", "--workers", 1),
        "two": ("--runner", "process", "--workers", 2),
        "auto": (),
    }
    for name, flags in hands.items():
        succeeded(generate(*drawing, "--num-episodes", 6, "--data-root", tmp_path / name, *flags))
    pictures = [snapshot(tmp_path / name) for name in hands]
    assert len(pictures[0]) == 6 * 6
    assert all(picture == pictures[0] for picture in pictures)


def test_another_seed_gives_other_episodes(generate: Command, tmp_path: Path) -> None:
    for seed in (0, 1):
        root = tmp_path / str(seed)
        succeeded(
            generate("--env", "CartPole-v1", "--random", "--num-episodes", 1, "--seed", seed, "--data-root", root)
        )
    path = "episodes/CartPole-v1_random_experiment/random/0.npz"
    assert (tmp_path / "0" / path).read_bytes() != (tmp_path / "1" / path).read_bytes()


@pytest.mark.parametrize(
    "flags",
    [pytest.param(("--runner", "inprocess"), marks=pytest.mark.soak), ("--runner", "process", "--workers", "2")],
)
def test_an_episode_that_fails_is_named_and_only_it_is_made_by_the_next_run(
    flags: tuple[str, ...],
    generate: Command,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Snapshot,
    step_count: Callable[[], int],
) -> None:
    monkeypatch.setenv(EVENTS, f"raise@{episode_seed(0, 3)}:2")
    result = generate(*COUNTING, "--num-episodes", 6, *flags)
    assert (result.code, complaints(result.err)) == (1, [])
    assert row(result) == ["5", "0", "1"]
    assert "episode 3 failed at step 2: RuntimeError: the floor is lava" in result.out
    assert not list(data_root.rglob("3.*"))
    assert not (data_root / ".runs").exists()
    monkeypatch.delenv(EVENTS)
    before = step_count()
    assert row(succeeded(generate(*COUNTING, "--num-episodes", 6, *flags))) == ["1", "5", "0"]
    assert step_count() - before == 5
    succeeded(generate(*COUNTING, "--num-episodes", 6, "--data-root", tmp_path / "whole"))
    assert snapshot(data_root) == snapshot(tmp_path / "whole")


def test_a_run_survives_a_killed_worker(
    generate: Command, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    monkeypatch.setenv(EVENTS, f"kill@{episode_seed(0, 3)}:2:{tmp_path / 'killed'}")
    result = generate(*COUNTING, "--num-episodes", 6, "--runner", "process", "--workers", 2)
    died = "A worker process died (killed, or out of memory). Its episodes are made again."
    assert (result.code, complaints(result.err)) == (0, [died]), result
    assert (tmp_path / "killed").exists()
    assert row(result) == ["6", "0", "0"]
    succeeded(generate(*COUNTING, "--num-episodes", 6, "--data-root", tmp_path / "whole"))
    assert snapshot(data_root) == snapshot(tmp_path / "whole")


def test_a_conflict_names_what_differs_and_overwriting_solves_it(
    generate: Command, data_root: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    succeeded(generate(*COUNTING, "--num-episodes", 2))
    before = snapshot(data_root)
    result = generate(*COUNTING, "--num-episodes", 2, "--max-steps-per-episode", 3)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "max_steps_per_episode" in result.err
    assert snapshot(data_root) == before
    succeeded(generate(*COUNTING, "--num-episodes", 2, "--max-steps-per-episode", 3, "--overwrite"))
    succeeded(generate(*COUNTING, "--num-episodes", 2, "--max-steps-per-episode", 3, "--data-root", tmp_path / "new"))
    assert snapshot(data_root) == snapshot(tmp_path / "new") != before


def test_registering_only_makes_no_episode(generate: Command, data_root: Path, step_count: Callable[[], int]) -> None:
    kwargs = ("--env-kwargs", "length:3", "max_episode_steps:2")
    succeeded(generate(*ENV, "--register-only", "--random", "--exp", "e", *kwargs))
    assert [path.name for path in data_root.iterdir() if not path.name.startswith("rlhfblender.db")] == []
    assert step_count() == 0
    # What was registered counts when the experiment is used by name.
    succeeded(generate("--exp", "e", "--random", "--num-episodes", 1))
    manifest = json.loads((data_root / "manifests/e/random/0.json").read_text())
    assert (manifest["episode_length"], manifest["truncated"]) == (2, True)
    assert manifest["environment"]["kwargs"] == {"length": 3}


@pytest.mark.parametrize(("env", "says"), [("Black", "black throughout"), ("Constant", "never changes")])
def test_videos_that_show_nothing_are_reported(env: str, says: str, generate: Command) -> None:
    entry_point = f"tests.support.environments_for_tests.counting:{env}"
    result = succeeded(generate("--env", "V-v0", "--env-gym-entrypoint", entry_point, "--random", "--num-episodes", 2))
    assert f"warning: random: in 2 episodes the video {'is ' if env == 'Black' else ''}{says}" in result.out


def test_without_rendering_there_are_no_pictures(generate: Command, data_root: Path) -> None:
    entry_point = "tests.support.environments_for_tests.counting:Blind"
    blind = ("--env", "B-v0", "--env-gym-entrypoint", entry_point, "--random", "--no-render", "--num-episodes", 2)
    assert ".mp4" not in succeeded(generate(*blind)).out
    assert not (data_root / "renders").exists()
    assert row(succeeded(generate(*blind))) == ["0", "2", "0"]


def test_an_environment_that_its_package_registers(generate: Command) -> None:
    packages = ("--additional-gym-packages", "tests.support.environments_for_tests")
    succeeded(generate("--env", "ForTests/Counting-v0", *packages, "--random", "--num-episodes", 1))


class TestTrained:
    def test_checkpoints_and_the_random_baseline_start_from_the_same_states(
        self, generate: Command, data_root: Path, trained_cartpole: Path, snapshot: Snapshot, tmp_path: Path
    ) -> None:
        flags = ("--env", "CartPole-v1", "--exp", "t", "--model-path", trained_cartpole, "--num-episodes", 2)
        result = succeeded(generate(*flags, "--checkpoints", 0, 128, 256))
        for checkpoint in ("random", "128", "256"):
            assert row(result, checkpoint) == ["2", "0", "0"]
        for n in range(2):
            first = []
            for checkpoint in ("random", "128", "256"):
                with np.load(data_root / f"episodes/t/{checkpoint}/{n}.npz", allow_pickle=False) as episode:
                    first.append(episode["obs"][0].tolist())
                    assert ("values" in episode) == (checkpoint != "random")
            assert first[0] == first[1] == first[2]
        processes = ("--runner", "process", "--workers", 2, "--data-root", tmp_path / "processes")
        succeeded(generate(*flags, "--checkpoints", 0, 128, 256, *processes))
        assert snapshot(data_root) == snapshot(tmp_path / "processes")

    def test_without_steps_the_latest_is_taken_and_the_experiment_remembers_its_path(
        self, generate: Command, data_root: Path, trained_cartpole: Path
    ) -> None:
        flags = ("--env", "CartPole-v1", "--exp", "t", "--model-path", trained_cartpole, "--num-episodes", 1)
        succeeded(generate(*flags, "--deterministic"))
        (label,) = [path.name for path in (data_root / "manifests/t").iterdir()]
        manifest = json.loads((data_root / f"manifests/t/{label}/0.json").read_text())
        assert (manifest["policy"]["algorithm"], manifest["policy"]["deterministic"]) == ("PPO", True)
        assert row(succeeded(generate("--exp", "t", "--num-episodes", 1)), label) == ["0", "1", "0"]
        assert row(succeeded(generate("--exp", "t", "--random", "--num-episodes", 1))) == ["1", "0", "0"]
