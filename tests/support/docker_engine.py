"""The image that a real Docker engine builds of deployments/Containerfile, and containers of it.

The engine is the test's own: it has a folder and a socket of its own, no network but the machine's, and ends with the
test. No image registry is asked: the image that the file starts from is made of a bare Debian folder.
"""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.container_steps import instructions, make_base, suite_of

NAME = "rlhfblender-data"


def can_start(folder: Path) -> bool:
    """Whether an engine can be started here: tries it."""
    if os.geteuid() != 0 or not all(shutil.which(program) for program in ("dockerd", "docker", "debootstrap")):
        return False
    try:
        with started_engine(folder):
            return True
    except RuntimeError as error:  # root, but in a container without rights, say
        print(f"No Docker engine here: {error}")
        return False


@dataclass
class DockerImage:
    """The image, in an engine that listens at ``host``.

    Attributes:
        host: address of the engine, for ``DOCKER_HOST``.
        containers: those that were started.
    """

    host: str
    containers: list["subprocess.Popen[str]"] = field(default_factory=list)

    def docker(self, *arguments: str) -> str:
        """What the client prints."""
        done = subprocess.run(
            ["docker", *arguments], env=self._environment, capture_output=True, text=True, timeout=1500, check=False
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host}

    def build(self, containerfile: Path, base: Path, base_name: str, context: Path) -> None:
        """Builds the image on a base that is the content of a folder."""
        with subprocess.Popen(["tar", "-C", str(base), "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(["docker", "import", "-", base_name], env=self._environment, stdin=tar.stdout, check=True)
        self.docker("build", "--network", "host", "--file", str(containerfile), "--tag", NAME, str(context))

    def start(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        mounts: dict[Path, str] | None = None,
        user: str | None = None,
    ) -> "subprocess.Popen[str]":
        """``docker run IMAGE ARGUMENTS``, in the foreground."""
        options = [word for name, value in (environment or {}).items() for word in ("--env", f"{name}={value}")]
        options += [word for path, place in (mounts or {}).items() for word in ("--volume", f"{path}:{place}")]
        options += ["--user", user] if user else []
        name = f"test-{len(self.containers)}"
        container = subprocess.Popen(
            ["docker", "run", "--rm", "--name", name, "--network", "host", *options, NAME, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.containers.append(container)
        return container

    def check_health(self, container: "subprocess.Popen[str]", _environment: dict[str, str]) -> int:
        """The exit code of the image's health check, started in the container now."""
        (image,) = json.loads(self.docker("image", "inspect", NAME))
        _, *command = image["Config"]["Healthcheck"]["Test"]
        return subprocess.run(
            ["docker", "exec", self._name(container), *command],
            env=self._environment,
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode

    def first_process(self, container: "subprocess.Popen[str]") -> int:
        """Number, on this machine, of the container's process 1."""
        return int(self.docker("inspect", "--format", "{{.State.Pid}}", self._name(container)))

    def _name(self, container: "subprocess.Popen[str]") -> str:
        return f"test-{self.containers.index(container)}"


@contextmanager
def started_engine(folder: Path) -> Iterator[DockerImage]:
    """A Docker engine that keeps everything in that folder; without the image."""
    image = DockerImage(f"unix://{folder / 'docker.sock'}")
    locations = [
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")),
        *("--host", image.host),
    ]
    # Nothing of this machine's network is touched.
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    with (folder / "dockerd.log").open("wb") as log, ExitStack() as stack:
        engine = subprocess.Popen(["dockerd", *locations, *network], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        # The engine leaves this mounted, and the folder couldn't be removed.
        netns = folder / "exec" / "netns" / "default"
        stack.callback(subprocess.run, ["umount", "--quiet", str(netns)], check=False, stderr=subprocess.DEVNULL)
        stack.callback(engine.wait, 60)
        stack.callback(engine.terminate)
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "--host", image.host, "info"], capture_output=True, check=False).returncode:
            if engine.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "dockerd.log").read_text()[-2000:])
            time.sleep(0.5)
        yield image


@contextmanager
def built_image(
    folder: Path, containerfile: Path, context: Path, pip: dict[str, str], there: Path | None
) -> Iterator[DockerImage]:
    """The image, built by an engine that is stopped afterwards.

    Args:
        folder: for all that the engine keeps.
        containerfile: what to build.
        context: what it copies from.
        pip: settings of pip that reach packages from this machine.
        there: a bare Debian folder, if there is one already.
    """
    base_name = dict(instructions(containerfile.read_text(encoding="utf-8")))["FROM"]
    base = there or folder / "base"
    make_base(base, suite_of(base_name))
    with ExitStack() as stack:
        image = stack.enter_context(started_engine(folder))
        settings = {name: _reachable(value, base, stack) for name, value in pip.items()}
        (base / "etc" / "pip.conf").write_text(
            "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        image.build(containerfile, base, base_name, context)
        yield image


def _reachable(value: str, base: Path, stack: ExitStack) -> str:
    """The value, with this machine's files copied to the base, and its folders served to the build."""
    words = []
    for word in value.replace("\\n", " ").split():
        path = Path(word.removeprefix("file://"))
        if not path.is_absolute() or not path.exists():
            words.append(word)
        elif path.is_file():
            (base / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, base / path.relative_to("/"))
            words.append(str(path))
        else:
            # A local index refers to files beside it.
            shown, rest = (path.parent, "simple") if path.name == "simple" else (path, "")
            words.append(f"{stack.enter_context(_served(shown))}/{rest}")
    return " ".join(words)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        pass
