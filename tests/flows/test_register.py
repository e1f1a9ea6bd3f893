"""``flows/register.py`` as a command: what it prints, and its exit codes. It needs no Prefect server."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows.register import main
from rlhfblender_core.errors import RLHFBlenderError, one_line
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from tests.support.generating import generate, request

COUNTING = ("--env", "Counted-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.counting:Counting")


@pytest.fixture
def register(data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["register.py", *arguments])
        monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", str(data_root))
        try:
            code: object = main()
        except SystemExit as exit_:
            code = exit_.code
        except RLHFBlenderError as error:  # as run_command does
            code = 2
            sys.stderr.write(f"error: {one_line(error)}\n")
        return code, *capsys.readouterr()

    return run


def test_the_dimensions_are_the_only_line(register) -> None:
    assert register(*COUNTING, "--get-action-dims") == (0, "Action dimensions: 1\n", "")
    assert register(*COUNTING[:2], "--get-action-dims") == (0, "Action dimensions: 1\n", "")


def test_labels_show_in_the_list(register) -> None:
    code, out, _ = register(*COUNTING, "--set-action-labels", "up", "down", "[left]", "--project", "A" * 60)
    assert (code, out.splitlines()[-2]) == (0, "Action labels: up, down, [left]")
    code, out, _ = register("--list")
    assert code == 0
    assert "Counted-v0" in out
    assert "up, down, [left]" in out
    assert "tests.support.environments_for_tests.counting:Counting" in out, "not folded where it is piped"


def test_an_empty_registry_is_listed_and_not_made(register, data_root: Path) -> None:
    assert register("--list") == (0, "Nothing is registered.\n", "")
    assert not data_root.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--env"),
        (("--get-action-dims", "--list"), "--env"),
        (("--env", "CartPol-v1"), "CartPole-v1"),
        ((*COUNTING, "--env-kwargs", "actions:multi_binary", "--get-action-dims"), "flat Box"),
        ((*COUNTING, "--set-action-labels", "a"), "3 names"),
        ((*COUNTING, "--project", "a/b"), "project"),
        ((*COUNTING, "--set-action-images", "a=b.png"), "--set-action-labels"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(register, data_root: Path, arguments, says: str) -> None:
    code, out, err = register(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not data_root.exists()


def test_the_module_of_the_documentation_starts_it_without_prefect(data_root: Path) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['register', '--env', 'CartPole-v1', '--get-action-dims', '--data-root', {str(data_root)!r}]\n"
        "try: runpy.run_module('rlhfblender_core.register', run_name='__main__')\n"
        "finally: print('prefect' in sys.modules, file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "Action dimensions: 1\n", "False\n")


OTHER = "tests.support.environments_for_tests.counting:Drawing"


@pytest.fixture
def studied(register, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The registry's URL: ``a`` and ``b`` study an environment, ``a`` has two episodes."""
    monkeypatch.setenv("RLHFBLENDER_TRUSTED_PACKAGES", "tests")
    root, url = open_data_root(str(data_root)), f"sqlite:///{data_root / 'rlhfblender.db'}"
    for name, episodes in (("a", 2), ("b", 1)):
        asked = {"env": "Counted-v0", "exp": name, "no_render": True, "register_only": name == "b"}
        generate(root, url, request(episodes, **asked))
    return url


def test_an_environment_is_updated_and_what_depends_on_it_is_said(register, studied: str) -> None:
    assert register(*COUNTING[:3], OTHER)[:2] == (2, "")
    code, out, err = register(*COUNTING[:3], OTHER, "--update")
    assert (code, err) == (0, "")
    assert "Experiment a has 2 episodes made before" in out
    assert "Experiment b has no episodes yet" in out
    with open_registry(studied) as registry:
        assert registry.list_environments()[0].entry_point == OTHER
    assert register(*COUNTING[:2], "--get-action-dims") == (0, "Action dimensions: 1\n", "")


def test_an_experiment_gets_other_keyword_arguments_and_another_project(register, studied: str) -> None:
    code, out, _ = register("--exp", "a", "--update", "--env-kwargs", "length:4", "actions:box", "--project", "P")
    assert code == 0
    assert out.splitlines() == [
        "Experiment a is one of P, its environment Counted-v0 length:4 actions:box.",
        "Experiment a has 2 episodes made before, which stay. Where they were made otherwise, more of them need "
        "--overwrite.",
    ]
    with open_registry(studied) as registry:
        record = registry.find_experiment("a")
        assert record is not None
        assert (record.project, record.env_kwargs) == ("P", {"length": 4, "actions": "box"})
        assert record.action_space["type"] == "Box"


@pytest.mark.parametrize("words", [("--delete-env", "Counted-v0"), ("--env", "Counted-v0", "--delete-env")])
def test_an_environment_is_deleted_once_no_experiment_uses_it(register, studied: str, words: tuple[str, ...]) -> None:
    code, out, err = register(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "used by 2 experiments: a, b." in err
    with open_registry(studied) as registry:
        for name in ("a", "b"):
            registry.forget_experiment(name)
    assert register(*words) == (0, "Environment Counted-v0 is no longer registered.\n", "")
    assert register(*words)[0] == 2
    assert "Counted-v0" not in register("--list")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--env", "Unknown-v0", "--update"), "no environment 'Unknown-v0' to update"),
        (("--exp", "a"), "--update"),
        (("--exp", "a", "--update"), "Nothing to update"),
        (("--exp", "c", "--update", "--project", "P"), "No experiment 'c'"),
        (("--exp", "a", "--update", "--env-kwargs", "nonsense:1"), "no keyword argument 'nonsense'"),
        (("--exp", "a", "--update", "--project", "a/b"), "project"),
        (("--exp", "a", "--env", "Counted-v0", "--update"), "without --env"),
        (("--delete-env", "Unknown-v0"), "no environment 'Unknown-v0'"),
        (("--env", "Counted-v0", "--update", "--env-gym-entrypoint", "no.such:Thing"), "no.such"),
    ],
)
def test_what_cant_be_updated_is_one_line_and_changes_nothing(register, studied: str, arguments, says: str) -> None:
    def dump() -> list[str]:
        with contextlib.closing(sqlite3.connect(studied.removeprefix("sqlite:///"))) as connection:
            return [line for line in connection.iterdump() if line.startswith("INSERT")]

    before = dump()
    code, out, err = register(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert says in err
    assert dump() == before


def test_keyword_arguments_are_named_with_the_command_that_takes_them(register) -> None:
    code, out, _ = register(*COUNTING, "--env-kwargs", "length:4")
    *_, why, line = out.splitlines()
    assert (code, why) == (0, "Keyword arguments belong to experiments, not to the environment:")
    assert line.startswith("Generate: ")
    assert "--env Counted-v0 --random --env-kwargs length:4" in line
