"""``--verbose`` and ``PREFECT_LOGGING_LEVEL`` show where errors come from, from whichever process and on any runner."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
FAILING = """
import gymnasium
from tests.support.environments_for_tests.counting import Counting

class Failing(Counting):
    def step(self, action):
        return self._look_up({})

    def _look_up(self, table):
        return table["\\x1b[2Jno such key"]
"""


def run(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "failing.py").write_text(FAILING)
    path = os.pathsep.join((str(tmp_path), str(REPOSITORY)))
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "flows" / "generate.py"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


EPISODES = ("--env", "Failing-v0", "--env-gym-entrypoint", "failing:Failing", "--random", "--num-episodes", "2")


@pytest.mark.parametrize(
    ("arguments", "variables", "traces"),
    [
        (("--verbose",), {}, 2),
        pytest.param(("--verbose", "--runner", "inprocess"), {}, 2, marks=pytest.mark.soak),
        pytest.param((), {"PREFECT_LOGGING_LEVEL": "DEBUG"}, 2, marks=pytest.mark.soak),
        ((), {}, 0),
    ],
)
def test_an_environments_error_is_shown_with_its_traceback(
    arguments: tuple[str, ...], variables: dict[str, str], traces: int, tmp_path: Path, prefect_server: str
) -> None:
    ended = run(tmp_path, *EPISODES, "--no-render", *arguments, PREFECT_API_URL=prefect_server, **variables)
    assert ended.returncode == 1
    assert ended.stderr.count("in _look_up") == traces
    assert ended.stderr.count("Traceback") == traces
    assert "failed: random: episode 1 failed at step 0: KeyError:" in ended.stdout
    assert "\x1b" not in ended.stderr


def test_a_refusal_is_shown_with_its_traceback_and_its_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "--env", "Failing-v0", "--env-gym-entrypoint", "failing:Nothing", "--random", "--verbose")
    assert ended.returncode == 2
    assert "in load_entry_point" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.soak
@pytest.mark.parametrize("has_ui", [True, False])
def test_prefects_level_shows_prefects_lines(has_ui: bool, tmp_path: Path, prefect_server: str) -> None:
    variables = {"PREFECT_API_URL": prefect_server if has_ui else "", "PREFECT_LOGGING_LEVEL": "INFO"}
    ended = run(tmp_path, *EPISODES, "--no-render", **variables)
    assert "Beginning flow run 'generate Failing-v0 random'" in ended.stderr
    assert ("View at http" in ended.stderr) == has_ui
    assert "Traceback" not in ended.stderr
