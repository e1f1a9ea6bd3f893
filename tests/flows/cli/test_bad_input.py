"""Every wrong request: exit code 2, one line that says what is wrong and what to do, nothing left behind.

The command is run without a Prefect server: what is refused here is refused before anything is started.
"""

import contextlib
import importlib.util
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord, open_registry
from rlhfblender_core.registry.migrations import VERSION_TABLE
from tests.support.environments_for_tests.masked import Masking

Command = Callable[..., Any]
MODULE = "tests.support.environments_for_tests.counting"
COUNTING = ("--env", "Mine-v0", "--env-gym-entrypoint", f"{MODULE}:Counting")
RANDOM = (*COUNTING, "--random")


@pytest.fixture
def refused(generate: Command, data_root: Path) -> Callable[..., str]:
    """The line with which a request is refused."""

    def run(*arguments: object, leaves: bool = False) -> str:
        result = generate(*arguments)
        assert (result.code, result.out) == (2, ""), result.err
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert result.err.endswith("\n")
        assert "Traceback" not in result.err
        assert leaves or not data_root.exists()
        return str(result.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--random",), "--env"),
        (("--env", "CartPol-v1", "--random"), "CartPole-v1"),
        (("--env", "CartPole-v77", "--random"), "CartPole-v1"),
        (("--env", "../x", "--random"), "could leave its folder"),
        (("--env", "", "--random"), "is empty"),
        (("--env", "x" * 300, "--random"), "too long"),
        (("--env", "Mine-v0", "--random", "--env-gym-entrypoint", "no_such_module:Env"), "no_such_module"),
        (("--env", "Mine-v0", "--random", "--env-gym-entrypoint", f"{MODULE}:Nope"), "Nope"),
        (("--env", "Mine-v0", "--random", "--env-gym-entrypoint", MODULE), "module:"),
        (("--env", "Mine-v0", "--random", "--env-gym-entrypoint", f"{MODULE}:NotAnEnv"), "Env"),
        (("--env", "CartPole-v1", "--random", "--additional-gym-packages", "no_such_package"), "no_such_package"),
        (("--env", "B-v0", "--random", "--env-gym-entrypoint", f"{MODULE}:Blind"), "--no-render"),
        (("--env", "U-v0", "--random", "--env-gym-entrypoint", f"{MODULE}:Unready", "--no-render"), "space says"),
        (COUNTING, "--random"),
        ((*RANDOM, "--model-path", "models"), "not both"),
        ((*COUNTING, "--model-path", "sftp://user:pw@host/x"), "RLHFBLENDER_STORAGE_OPTIONS"),
        ((*COUNTING, "--model-path", "/no/such/folder"), "/no/such/folder"),
        ((*COUNTING, "--model-path", ""), "--model-path"),
        ((*RANDOM, "--num-episodes", "0"), "--num-episodes must be 1 or more, not 0"),
        ((*RANDOM, "--num-episodes", "-3"), "--num-episodes"),
        ((*RANDOM, "--num-episodes", "many"), "--num-episodes"),
        ((*RANDOM, "--seed", "-1"), "--seed"),
        ((*RANDOM, "--max-steps-per-episode", "0"), "--max-steps-per-episode"),
        ((*RANDOM, "--fps", "0"), "--fps"),
        ((*RANDOM, "--fps", "nan"), "--fps"),
        ((*RANDOM, "--fps", "1e9"), "--fps"),
        ((*RANDOM, "--workers", "0"), "--workers"),
        ((*RANDOM, "--runner", "cloud"), "cloud"),
        ((*RANDOM, "--checkpoints", "100"), "--model-path"),
        ((*COUNTING, "--model-path", ".", "--checkpoints", "-5"), "--checkpoints"),
        ((*RANDOM, "--env-kwargs", "length5"), "key:value"),
        ((*RANDOM, "--env-kwargs", "length:5", "length:6"), "twice"),
        ((*RANDOM, "--env-kwargs", "render_mode:human"), "--no-render"),
        ((*RANDOM, "--env-kwargs", "size:5"), "length"),
        ((*RANDOM, "--env-kwargs", "max_episode_steps:soon"), "max_episode_steps"),
        ((*RANDOM, "--action-names", "left", "right"), "3 names"),
        ((*RANDOM, "--action-names", "a", "b", "b"), "given twice"),
        ((*RANDOM, "--no-such-flag"), "--no-such-flag"),
        ((*RANDOM, "--data-root", "s3x://bucket"), "s3x"),
        ((*RANDOM, "--database-url", "mongodb://host/db"), "mongodb"),
        ((*RANDOM, "--database-url", "nonsense"), "database URL"),
        *(((*RANDOM, "--exp", name), "experiment name") for name in ("../x", "a/b", "", "x" * 300, ".", "a\nb")),
        *(((*RANDOM, "--project", name), "project name") for name in ("../x", "a/b", "", "x" * 300)),
        (("--exp", "unheard-of"), "unheard-of"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused(arguments: tuple[str, ...], says: str, refused: Callable[..., str]) -> None:
    assert says in refused(*arguments)


@pytest.mark.skipif(importlib.util.find_spec("gymnasium_robotics") is not None, reason="the package is installed")
def test_an_id_whose_package_is_missing_says_what_to_install(refused: Callable[..., str]) -> None:
    assert "pip install gymnasium-robotics" in refused("--env", "FetchReach-v3", "--random")


class TestCheckpoints:
    def test_a_folder_without_checkpoints(self, refused: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "empty" in refused("--env", "CartPole-v1", "--model-path", tmp_path / "empty")

    def test_a_step_that_doesnt_exist_with_those_that_do(
        self, refused: Callable[..., str], trained_cartpole: Path
    ) -> None:
        line = refused("--env", "CartPole-v1", "--model-path", trained_cartpole, "--checkpoints", 128, 999)
        assert "999" in line
        assert "256" in line

    def test_a_label_that_doesnt_exist(self, refused: Callable[..., str], trained_cartpole: Path) -> None:
        assert "best" in refused("--env", "CartPole-v1", "--model-path", trained_cartpole, "--checkpoints", "best")
        assert "newest" in refused("--env", "CartPole-v1", "--model-path", trained_cartpole, "--checkpoints", "newest")

    @pytest.mark.parametrize("kind", ["text", "other zip", "cut off", "empty"])
    def test_a_file_that_is_no_model(
        self, kind: str, refused: Callable[..., str], trained_cartpole: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.zip"
        whole = (trained_cartpole / "CartPole-v1.zip").read_bytes()
        path.write_bytes({"cut off": whole[: len(whole) // 2], "text": b"hello"}.get(kind, b""))
        if kind == "other zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("readme.txt", "hello")
        assert "model.zip" in refused("--env", "CartPole-v1", "--model-path", path)

    @pytest.mark.parametrize("env", ["Acrobot-v1", "Pendulum-v1", "MountainCar-v0"])
    def test_spaces_that_dont_match(self, env: str, refused: Callable[..., str], trained_cartpole: Path) -> None:
        line = refused("--env", env, "--model-path", trained_cartpole / "CartPole-v1.zip")
        assert "trained on observations" in line

    def test_an_algorithm_that_it_isnt(self, refused: Callable[..., str], trained_cartpole: Path) -> None:
        path = trained_cartpole / "CartPole-v1.zip"
        assert "PPO" in refused("--env", "CartPole-v1", "--model-path", path, "--algorithm", "Nonsense")


class TestMasks:
    ENV = (
        *("--env", "Choosing-v0", "--no-render"),
        *("--env-gym-entrypoint", "tests.support.environments_for_tests.masked:Choosing"),
    )

    def test_a_method_that_isnt_there(self, refused: Callable[..., str]) -> None:
        line = refused(*self.ENV, "--random", "--action-mask-method", "legal_actions")
        assert "no method legal_actions()" in line
        assert "--action-mask-method valid_action_mask" in line

    def test_what_is_no_name_of_a_method(self, refused: Callable[..., str]) -> None:
        assert "name of a method" in refused(*self.ENV, "--random", "--action-mask-method", "a b")

    def test_an_environment_that_doesnt_say_what_is_allowed(self, refused: Callable[..., str], tmp_path: Path) -> None:
        from sb3_contrib import MaskablePPO

        model = MaskablePPO("MlpPolicy", Masking(), n_steps=16, batch_size=16, device="cpu")
        model.save(tmp_path / "model.zip")
        line = refused(*self.ENV, "--model-path", tmp_path / "model.zip")
        assert "--action-mask-method valid_action_mask" in line


class TestRegistered:
    @pytest.fixture(autouse=True)
    def registered(self, data_root: Path) -> Iterator[None]:
        """An environment and an experiment; what is refused leaves both as they are."""
        database = data_root / "rlhfblender.db"
        with open_registry(f"sqlite:///{database}") as registry:
            registry.ensure_environment(EnvironmentRecord(env_id="Mine-v0", entry_point=COUNTING[3]))
            registry.ensure_environment(EnvironmentRecord(env_id="CartPole-v1"))
            settings = {
                "seed": 3,
                "deterministic": False,
                "max_steps_per_episode": None,
                "algorithm": None,
                "fps": None,
                "render": True,
            }
            registry.ensure_experiment(
                ExperimentRecord(
                    name="study", env_id="Mine-v0", kind="random", settings=settings, env_kwargs={"length": 4}
                )
            )
        before = sorted(path.name for path in data_root.iterdir()), self.rows(database)
        yield
        assert (sorted(path.name for path in data_root.iterdir()), self.rows(database)) == before

    @staticmethod
    def rows(database: Path) -> list[str]:
        connection = sqlite3.connect(database)
        try:
            return [line for line in connection.iterdump() if line.startswith("INSERT")]
        finally:
            connection.close()

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--env", "CartPole-v1", "--exp", "study", "--random"), "Mine-v0"),
            (("--exp", "study", "--seed", "4"), "seed = 3"),
            (("--exp", "study", "--no-render"), "render"),
            (("--exp", "study", "--max-steps-per-episode", "9"), "max_steps_per_episode"),
            (("--exp", "study", "--project", "Other"), "project"),
            (("--exp", "study", "--env-kwargs", "length:5"), "length = 4"),
            (("--env", "CartPole-v1", *COUNTING[2:], "--random"), "entry point"),
            (("--env", "Mine-v0"), "--random"),
            (("--env", "CartPole-v1", "--exp", "Study", "--random"), "Experiment 'study' is registered"),
        ],
    )  # fmt: skip
    def test_what_is_registered_otherwise(
        self, arguments: tuple[str, ...], says: str, refused: Callable[..., str]
    ) -> None:
        assert says in refused(*arguments, leaves=True)

    def test_a_registry_of_a_newer_version(self, refused: Callable[..., str], data_root: Path, tmp_path: Path) -> None:
        newer = tmp_path / "newer.db"
        shutil.copy(data_root / "rlhfblender.db", newer)
        connection = sqlite3.connect(newer)
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
        connection.close()
        assert "newer version" in refused(*RANDOM, "--database-url", f"sqlite:///{newer}", leaves=True)


@pytest.mark.parametrize("place", ["a file", "below a file", "too long", "/proc/data"])
def test_a_data_root_that_cant_be_written(place: str, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    locations = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "data",
        "too long": tmp_path / ("x" * 300),
    }
    line = refused(*RANDOM, "--data-root", locations.get(place, place))
    assert "data root" in line
    assert "--data-root" in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with hardly any space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if not made or made.returncode != 0:
        pytest.skip("mounting a small disk takes rights that this user doesn't have")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_full_from_the_start(generate: Command, small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 512)
    result = generate(*RANDOM, "--data-root", small_disk / "data")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1), result
    assert f"The disk {small_disk} is full" in result.err
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.usefixtures("prefect")
def test_a_disk_that_gets_full_on_the_way(generate: Command, small_disk: Path, tmp_path: Path) -> None:
    result = generate(
        *RANDOM, "--num-episodes", 30, "--data-root", small_disk, "--database-url", f"sqlite:///{tmp_path}/db"
    )
    assert (result.code, result.err.count("\n")) == (1, 1), result
    assert f"The disk {small_disk} is full" in result.err


def test_a_run_that_would_replace_what_was_laid_there_by_hand(
    refused: Callable[..., str], data_root: Path, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    for path in ("episodes/my study/random/1.npz", "renders/my study/random/1.mp4"):
        (data_root / path).parent.mkdir(parents=True)
        (data_root / path).write_bytes(b"theirs")
    before = snapshot(data_root)
    line = refused(*RANDOM, "--exp", "my study", leaves=True)
    assert "episodes/my study/random/1.npz, renders/my study/random/1.mp4 (2 files) lie where" in line
    assert "flows/import_data.py --exp 'my study' --env Mine-v0` takes in" in line
    assert snapshot(data_root) == before
    assert {path.name for path in data_root.iterdir()} == {"episodes", "renders"}


def test_a_mistyped_flag_gets_the_one_that_may_have_been_meant(refused: Callable[..., str]) -> None:
    assert "Unrecognized arguments: --num-episode=3. Did you mean --num-episodes? See --help." in refused(
        *RANDOM, "--num-episode=3"
    )
    assert "Did you mean --env-kwargs and --exp? See --help." in refused(*RANDOM, "--env_kwargs", "--experiment")
    assert "Did you mean" not in refused(*RANDOM, "--xyzzyx", "3")


def test_paths_below_the_current_folder_are_named_from_there(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused("--env", "CartPole-v1", "--model-path", "my models")
    assert line == "error: There is nothing at 'my models'. Check the path of the model.\n"


def test_a_flag_for_what_is_given_without_one_is_told_so(command_line: Callable[..., Any]) -> None:
    assert "--out. OUT is given without a flag. See --help." in command_line("export", "--out", "there").err
