"""The folder that a command is started in may be somebody's data: nothing in it is imported or sets up what runs."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
LOGGING = "their.yml"
SETTINGS = {
    "prefect.toml": f'[logging]\nconfig_path = "{LOGGING}"\n',
    ".env": f"prefect_logging_config_path={LOGGING}\n",
    "pyproject.toml": f'[tool]\nprefect = {{logging = {{config_path = "{LOGGING}"}}}}\n',
}
#: Of Python's own, of this project's, of what workers load.
MODULES = ("random", "multiprocessing", "rlhfblender_core", "numpy", "payload")
WORK = """
from pathlib import Path
from rlhfblender_core.workers.pool import Workers
from tests.support.environments_for_tests import work

with Workers(1, Path(__file__).parent) as workers:
    print(workers.run(work.add, 2, two=3))
"""


def run(*command: object, cwd: Path, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, *map(str, command))
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.soak
def test_control_prefect_takes_settings_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "prefect.toml").write_text(SETTINGS["prefect.toml"])
    asked = "from prefect.settings import get_current_settings; print(get_current_settings().logging.config_path)"
    assert LOGGING in run("-c", asked, cwd=tmp_path).stdout


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_prefect_in_the_current_folder_are_refused(name: str, tmp_path: Path) -> None:
    for content in (SETTINGS[name], "prefect = 'prefect", "a = " + "[" * 10_000 + "# prefect"):
        (tmp_path / name).write_text(content)
        done = run(REPOSITORY / "flows" / "gallery.py", "--help", cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert f"{name} would set Prefect up" in done.stderr


def test_other_files_of_these_names_are_none_of_prefects(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.mine]\n[project]\ndependencies = ["prefect"]\n')
    (tmp_path / ".env").write_text("AWS_PROFILE=mine\n")
    assert run(REPOSITORY / "flows" / "gallery.py", "--help", cwd=tmp_path).returncode == 0


def test_workers_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    here, script = tmp_path / "theirs", tmp_path / "mine" / "script.py"
    for folder in (here, script.parent):
        folder.mkdir()
    script.write_text(WORK)
    for module in MODULES:
        (here / f"{module}.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'owned')!r})\n")
    run("-c", "import payload", cwd=here)
    (tmp_path / "owned").rmdir()  # the control
    done = run(script, cwd=here, env={"PYTHONPATH": str(REPOSITORY)})
    assert (done.stdout, done.stderr) == ("5\n", "")
    assert not (tmp_path / "owned").exists()
