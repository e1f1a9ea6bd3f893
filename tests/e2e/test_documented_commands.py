"""The commands of README.md and docs/operations.md as a reader would type them."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.documented import REPOSITORY, of

README, OPERATIONS = of("python", "README.md"), of("python", "docs/operations.md")
MY_PACKAGE = """
from tests.support.environments_for_tests.counting import Counting

class MyEnv(Counting):
    def __init__(self, size=5, render_mode=None):
        super().__init__(length=size, render_mode=render_mode)
"""
Reader = Callable[[list[str]], None]


@pytest.fixture
def variables(tmp_path: Path, prefect_server: str) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (tmp_path, REPOSITORY)))
    return {**os.environ, "PREFECT_API_URL": prefect_server, "PYTHONPATH": paths}


@pytest.fixture
def reader(tmp_path: Path, variables: dict[str, str], trained_cartpole: Path) -> Reader:
    """Runs ``python flows/….py`` where the models and the package are that the documents speak of."""
    models = tmp_path / "models" / "CartPole-v1_1"
    models.mkdir(parents=True)
    for steps in (20000, 100000):
        saved = models / f"rl_model_{steps}_steps.zip"
        shutil.copy(trained_cartpole / "rl_model_128_steps.zip", saved)
        os.utime(saved, (0, 0))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "envs.py").write_text(MY_PACKAGE)

    def run(words: list[str]) -> None:
        # One episode tells as much as a thousand.
        few = [
            "1" if before == "--num-episodes" else word for before, word in zip(["", *words[:-1]], words, strict=True)
        ]
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / few[0]), *few[1:]],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(few)}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        assert f"{tmp_path}/" not in done.stdout + done.stderr, "paths are those from where one stands"
        for path in named_paths(done.stdout):
            assert (tmp_path / path).exists(), done.stdout

    return run


def named_paths(said: str) -> list[str]:
    """What the lines of a command name that one may open from where one stands."""
    labels = ("Data: ", "Watch: ", "Open in a browser: ")
    lines = [line.removeprefix(label) for line in said.splitlines() for label in labels if line.startswith(label)]
    return [path for line in lines for path in shlex.split(line) if "://" not in path]


@pytest.mark.soak
def test_the_command_for_an_environment_of_ones_own_runs(reader: Reader, tmp_path: Path) -> None:
    (custom,) = [words for words in README if "MyEnv-v0" in words]
    reader(custom)
    assert len(list(tmp_path.glob("data/renders/*/random/*.mp4"))) == 10


@pytest.mark.soak
def test_all_commands_of_the_operations_document_run_one_after_the_other(reader: Reader) -> None:
    for words in OPERATIONS:
        reader(words)


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a Dask scheduler with a worker."""
    distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")
    here = "127.0.0.1:0"
    with distributed.LocalCluster(
        1, host="127.0.0.1", dashboard_address=here, worker_dashboard_address=here
    ) as running:
        yield running.scheduler_address


@pytest.fixture
def bucket(tmp_path: Path, variables: dict[str, str]) -> Iterator[None]:
    """``s3://bucket`` exists, on a server that all commands use."""
    s3fs = pytest.importorskip("s3fs", reason="needs the extra [s3]")
    from tests.support.servers import moto

    with moto(tmp_path) as server:
        variables |= {**server.environment, "XDG_STATE_HOME": str(tmp_path / "state")}
        s3fs.S3FileSystem(endpoint_url=server.endpoint, key="test", secret="test").mkdir("bucket")
        yield


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_all_examples_of_the_readme_run_one_after_the_other(reader: Reader, cluster: str, bucket: None) -> None:
    pytest.importorskip("ale_py", reason="needs the extra [atari]")
    examples = [words for words in README if words[1:]]
    for words in examples:
        reader([word.replace("tcp://scheduler:8786", cluster) for word in words])
