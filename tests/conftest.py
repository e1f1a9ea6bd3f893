"""What all tests share. Prefect is pointed at a temporary home and one temporary server before anything imports it."""

import atexit
import contextlib
import contextvars
import gc
import hashlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# pytest-xdist's workers inherit the environment of the process that starts them, and with it this folder.
if "RLHFBLENDER_TESTS_HOME" not in os.environ:
    os.environ["RLHFBLENDER_TESTS_HOME"] = tempfile.mkdtemp(prefix="rlhfblender-tests-")
    os.environ["RLHFBLENDER_TESTS_PID"] = str(os.getpid())
    atexit.register(shutil.rmtree, os.environ["RLHFBLENDER_TESTS_HOME"], ignore_errors=True)
HOME = Path(os.environ["RLHFBLENDER_TESTS_HOME"])

_REAL_INPUTS = "RLHFBLENDER_REAL_INPUTS"
# A user's own settings must decide nothing here.
for _name in list(os.environ):
    if _name.startswith(("PREFECT_", "RLHFBLENDER_")) and not _name.startswith(("RLHFBLENDER_TESTS_", _REAL_INPUTS)):
        del os.environ[_name]
os.environ["PREFECT_HOME"] = str(HOME / "prefect")
os.environ["XDG_STATE_HOME"] = str(HOME / "state")  # what was named on command lines is remembered there
os.environ["RLHFBLENDER_CACHE"] = str(HOME / "cache")
# Commands that tests start know this package, and with it the environments made for tests.
os.environ["PYTHONPATH"] = str(REPOSITORY)

# Shells start what runs in the background with SIGINT ignored, and processes inherit that: Ctrl-C couldn't be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import tasks.prefect_defaults  # noqa: E402, F401 (sets Prefect's variables, before anything imports it)

from tests.support.deploying import team  # noqa: E402, F401 (a fixture)

pytest_plugins = ["tests.support.databases"]

_SERVER_START_S = 180


@pytest.hookimpl(trylast=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Has a file's tests run by one worker of pytest-xdist: what they share is made once."""
    if not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Makes sure that pytest-xdist sees the groups of tests that can't run at the same time."""
    is_grouping = getattr(config.option, "loadgroup", False)
    if is_grouping and any("@" not in item.nodeid for item in items if item.get_closest_marker("xdist_group")):
        raise pytest.UsageError("This pytest-xdist doesn't keep groups of tests together with this pytest.")


def _start_server(folder: Path) -> str:
    """The address of a new Prefect server, which ends when the process that runs the tests does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = f'"{sys.executable}" -m prefect server start --host 127.0.0.1 --port {port}'
    watch = "while kill -0 $RLHFBLENDER_TESTS_PID 2>/dev/null && kill -0 $server 2>/dev/null; do sleep 1; done"
    with (folder / "server.log").open("wb") as log:
        server_process = subprocess.Popen(
            ["/bin/sh", "-c", f"{server} & server=$!; {watch}; kill -KILL $server"],
            env={**os.environ, "PREFECT_HOME": str(folder / "server"), "PREFECT_SERVER_UI_API_URL": "/api"},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    server_process.returncode = 0  # nobody waits for it, its own shell ends it; else Python warns at exit
    url = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + _SERVER_START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return url
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"Prefect's server did not start: {(folder / 'server.log').read_text()[-2000:]}")


@pytest.fixture(scope="session")
def prefect_server() -> str:
    """Address of the one Prefect server of this test session, whichever worker came first."""
    from filelock import FileLock

    address = HOME / "server.url"
    with FileLock(HOME / "server.lock", timeout=_SERVER_START_S + 20):
        if not address.exists():
            address.write_text(_start_server(HOME))
    return address.read_text()


_modules = 0


def pytest_runtest_setup() -> None:
    """What is loaded is no garbage: else each search for some, of closed environments, goes through it in 0.2 s."""
    global _modules  # noqa: PLW0603 (of this process)
    if len(sys.modules) > _modules + 50:
        _modules = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _worker_processes_have_torch() -> None:
    """Workers are forked from one template for the whole session: without torch in it, each would load torch anew."""
    from rlhfblender_core.workers.processes import start_fork_server

    start_fork_server(trained=True)


@pytest.fixture
def prefect(prefect_server: str) -> Iterator[None]:
    """Flows called in this process talk to the session's server, and say nothing."""
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings

    settings = {PREFECT_API_URL: prefect_server, PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}
    with temporary_settings(settings):
        yield


@pytest.fixture
def step_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Says how many steps environments_for_tests have taken, in all processes."""
    from rlhfblender_core.rollout.trial import forget_trials

    forget_trials()  # of other tests
    path = tmp_path / "steps"
    path.touch()
    monkeypatch.setenv("ENVIRONMENTS_FOR_TESTS_STEPS", str(path))
    return lambda: path.stat().st_size


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, str]]:
    """Takes a picture of a data root: sha256 by path, of everything but the registry."""

    def take(root: Path) -> dict[str, str]:
        files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("rlhfblender.db")]
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}

    return take


@pytest.fixture(scope="session")
def real_inputs() -> Path:
    """The folder of other people's checkpoints, where there is one."""
    folder = Path(os.environ.get(_REAL_INPUTS) or REPOSITORY.parent / "shared" / "real-inputs")
    if not folder.is_dir():
        pytest.skip("no folder with other people's checkpoints; name one in RLHFBLENDER_REAL_INPUTS")
    return folder


@pytest.fixture(scope="session")
def trained_cartpole() -> Path:
    """A folder with two checkpoints and the final model of a little training on CartPole-v1."""
    from filelock import FileLock

    folder = HOME / "trained"
    with FileLock(HOME / "trained.lock"):
        if not (folder / "CartPole-v1.zip").exists():
            _train(folder)
    return folder


def _train(folder: Path) -> None:
    from stable_baselines3 import PPO

    folder.mkdir(exist_ok=True)
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=2, seed=0, device="cpu")
    for steps in (128, 256):
        model.learn(128, reset_num_timesteps=False)
        model.save(folder / f"rl_model_{steps}_steps.zip")
    model.save(folder / "CartPole-v1.zip")


@dataclass(frozen=True)
class CommandResult:
    """What a command line did: exit code, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Where a data root may be made; nothing is there yet."""
    return tmp_path / "data"


@pytest.fixture
def owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that something hostile would make: a pickle, ``os:mkdir``, the import of the module ``payload``."""
    folder = tmp_path / "owned"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "payload.py").write_text(f"import os\nos.makedirs({str(folder)!r}, exist_ok=True)\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return folder


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Runs the command line of a flow (``"verify"``) in this process; with ``prefect``, on the session's server."""
    import flows.ui.log_filters  # noqa: F401 (sets the core's level once; the first command's would be taken back)
    from flows.cli.process import run_command

    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

    def run(flow: str, *arguments: object) -> CommandResult:
        monkeypatch.setattr(sys, "argv", [f"{flow}.py", *map(str, arguments)])
        with logging_restored(), pytest.raises(SystemExit) as exit_:
            # What the command sets for its own run, the next one must not see.
            contextvars.copy_context().run(run_command, f"flows.{flow}")
        code = exit_.value.code
        assert isinstance(code, int)
        return CommandResult(code, *capsys.readouterr())

    return run


@pytest.fixture
def generate(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., CommandResult]
) -> Callable[..., CommandResult]:
    """Runs flows/generate.py's command line in this process; with the fixture ``prefect``, on the session's server."""

    def run(*arguments: object) -> CommandResult:
        monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", str(data_root))
        return command_line("generate", *arguments)

    return run


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Levels of loggers and handlers, and the handlers of the core's logger, are afterwards what they were before."""
    loggers = [
        logging.getLogger(),
        *(x for x in logging.Logger.manager.loggerDict.values() if isinstance(x, logging.Logger)),
    ]
    locations = [*loggers, *(handler for logger in loggers for handler in logger.handlers)]
    before = [(place, place.level) for place in locations]
    core = logging.getLogger("rlhfblender_core")
    handlers, propagate = core.handlers[:], core.propagate
    try:
        yield
    finally:
        core.handlers[:], core.propagate = handlers, propagate
        for place, level in before:
            place.setLevel(level)
