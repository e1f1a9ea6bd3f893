"""``flows/register.py`` as a command: what it prints, and its exit codes. It needs no Prefect server."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.register import main
from rlhfblender_core.errors import RLHFBlenderError, one_line

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
    assert (code, out.splitlines()[-1]) == (0, "Action labels: up, down, [left]")
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
