"""The Containerfile's steps carried out without an engine: in a bare Debian folder, with chroot and namespaces.

Reads the instructions that this project's file uses, and refuses others, so that it stays true to the file.
"""

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What the official image of Python brings: an interpreter in /usr/local.
_PYTHON = "python3,python3-venv,ca-certificates"
#: Becomes process 1 of namespaces of its own; what it mounts goes with it. A container writes to a layer of its own.
_ENTER = """set -e
root=$1 kind=$2; shift 2
if [ "$kind" = container ]; then
    layer=$root/mnt
    mount -t tmpfs tmpfs "$layer"
    mkdir "$layer/upper" "$layer/work" "$layer/merged"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$layer/upper,workdir=$layer/work" "$layer/merged"
    root=$layer/merged
fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    [ -d "$1" ] && mkdir -p "$root$2" || { mkdir -p "$(dirname "$root$2")"; touch "$root$2"; }
    mount --bind "$1" "$root$2"
    shift 2
done
shift
who=$1; shift
exec chroot --userspec "$who" "$root" "$@"
"""


@dataclass
class Image:
    """What the steps have made so far, and what a container made of it would do.

    Attributes:
        root: the container's root folder.
        context: what ``COPY`` copies from.
        build_mounts: folders and files of this machine, at the same place while the steps run.
        build_environment: what ``--build-arg`` would give.
    """

    root: Path
    context: Path
    build_mounts: tuple[Path, ...] = ()
    build_environment: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    folder: str = "/"
    user: str = "root"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()

    def build(self, containerfile: Path) -> None:
        """Carries out all steps."""
        for instruction, rest in instructions(containerfile.read_text(encoding="utf-8")):
            getattr(self, f"_{instruction.lower()}")(rest)

    def start(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        mounts: dict[Path, str] | None = None,
        user: str | None = None,
    ) -> "subprocess.Popen[str]":
        """What ``docker run [--user …] IMAGE ARGUMENTS`` does."""
        return subprocess.Popen(
            self._enter("container", (*self.entrypoint, *(arguments or self.command)), user or self.user, mounts or {}),
            env={**self.environment, "HOME": self._home(user or self.user), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check_health(self, container: "subprocess.Popen[str]", environment: dict[str, str]) -> int:
        """The exit code of the health check inside of a container that was started with that environment."""
        inside = str(self.first_process(container))
        return subprocess.run(
            ["nsenter", "--target", inside, "--mount", "--pid", "--root", "--wd", *self.healthcheck],
            env={**self.environment, **environment},
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode

    def first_process(self, container: "subprocess.Popen[str]") -> int:
        """Number, on this machine, of the container's process 1."""
        (inside,) = children(container.pid)
        return inside

    def _enter(
        self, kind: Literal["step", "container"], command: tuple[str, ...], user: str, mounts: dict[Path, str]
    ) -> list[str]:
        pairs = [str(word) for pair in mounts.items() for word in pair]
        who = user if ":" in user else f"{user}:{user}"
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.folder, *command]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        return [*namespaces, "/bin/sh", "-c", _ENTER, "enter", str(self.root), kind, *pairs, "--", who, *inside]

    def _home(self, user: str) -> str:
        """By the container's list of users, as engines do; ``HOME`` of the image's own wins."""
        lines = (self.root / "etc" / "passwd").read_text().splitlines()
        known = {name: home for name, _, _, _, _, home, _ in (line.split(":") for line in lines)}
        return self.environment.get("HOME") or known.get(user, "/")

    def _from(self, rest: str) -> None:
        make_base(self.root, suite_of(rest))

    def _run(self, rest: str) -> None:
        mounts = {path: str(path) for path in self.build_mounts}
        command = self._enter("step", ("/bin/sh", "-c", rest), self.user, mounts)
        environment = {**self.environment, **self.build_environment, "HOME": self._home(self.user)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{rest}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        ignored = (self.context / ".dockerignore").read_text(encoding="utf-8").split()
        for source in sources:
            for path in _files(self.context / source, self.context, ignored):
                relative = path.relative_to(self.context) if source == "." else Path(path.name)
                to = self.root / self.folder.strip("/") / target / relative
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)

    def _env(self, rest: str) -> None:
        self.environment |= dict(pair.partition("=")[::2] for pair in shlex.split(rest))

    def _arg(self, rest: str) -> None:
        assert "=" not in rest, f"ARG {rest}: defaults aren't known here"

    def _workdir(self, rest: str) -> None:
        self.folder = rest
        (self.root / rest.strip("/")).mkdir(parents=True, exist_ok=True)

    def _user(self, rest: str) -> None:
        self.user = rest

    def _volume(self, rest: str) -> None:
        assert (self.root / rest.strip("/")).is_dir()

    def _entrypoint(self, rest: str) -> None:
        self.entrypoint = tuple(json.loads(rest))

    def _cmd(self, rest: str) -> None:
        self.command = tuple(json.loads(rest))

    def _healthcheck(self, rest: str) -> None:
        self.healthcheck = tuple(json.loads(rest.partition("CMD")[2]))


def suite_of(base_name: str) -> str:
    """The Debian release of the image that a file starts from."""
    name, suite = base_name.rpartition("-")[::2]
    assert name == "python:3.11-slim", f"{base_name}: no folder of that kind is known here"
    return suite


def make_base(root: Path, suite: str) -> None:
    """Makes of a folder what the official image of Python is: a bare Debian, with an interpreter in /usr/local."""
    if not (root / "etc" / "debian_version").exists():
        debootstrap = ["debootstrap", "--variant=minbase", f"--include={_PYTHON}", suite, str(root)]
        subprocess.run(debootstrap, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["chroot", str(root), "python3", "-m", "venv", "/usr/local"], check=True)


def children(pid: int) -> list[int]:
    """Numbers of its child processes."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction with what follows it, its lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, rest = line.split(maxsplit=1)
            yield instruction, rest.strip()


def _files(start: Path, context: Path, ignored: list[str]) -> Iterator[Path]:
    """Files from there on that ``.dockerignore`` lets through."""
    if start != context and _is_ignored(str(start.relative_to(context)), ignored):
        return
    if start.is_dir():
        for entry in os.scandir(start):
            yield from _files(Path(entry.path), context, ignored)
    elif start.is_file():
        yield start


def _is_ignored(path: str, patterns: list[str]) -> bool:
    """A pattern that starts with ``**/`` counts in every folder, others from the top."""
    return any(
        fnmatch.fnmatchcase(path.rpartition("/")[2], pattern[3:])
        if pattern.startswith("**/")
        else fnmatch.fnmatchcase(path, pattern) and path.count("/") == pattern.count("/")
        for pattern in patterns
    )
