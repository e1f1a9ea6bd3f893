"""Several machines in one: network namespaces on a bridge of their own, which can be cut off one by one.

What runs in one reaches the others by their addresses alone; files are shared, as nothing here relies on that they
aren't. Needs root on Linux.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

#: Of the first machine, on which the services are.
HEAD = "10.99.0.1"

_WAIT = """
import sys, time, urllib.error, urllib.request
for _ in range(1200):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=5)
        break
    except urllib.error.HTTPError:
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit(f"{sys.argv[1]} does not answer")
"""

#: Passes connections on to a socket that is a file, until the other side is silent for ten seconds.
_FORWARD = """
import asyncio, socket, sys

async def copy(source, target):
    try:
        while content := await source.read(65536):
            target.write(content)
            await target.drain()
    except OSError:
        pass
    target.close()

async def passed_on(reader, writer):
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 10_000)):
        peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    inner_reader, inner_writer = await asyncio.open_unix_connection(sys.argv[3])
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

async def main():
    async with await asyncio.start_server(passed_on, sys.argv[1], int(sys.argv[2])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Attributes:
        name: of the namespace.
        address: of the machine.
        variables: what its programs find in their environment.
    """

    name: str
    address: str
    variables: Mapping[str, str] = field(repr=False)

    @contextlib.contextmanager
    def running(self, log: Path, *command: object) -> Iterator["subprocess.Popen[bytes]"]:
        """A Python program on the machine, ended when the context is left."""
        with log.open("wb") as stream, self.start(*command, output=stream.fileno()) as process:
            try:
                yield process
            finally:
                process.kill()

    def start(self, *command: object, output: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
        """Starts a Python program on the machine."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, sys.executable, *map(str, command)],
            env=dict(self.variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output if output != subprocess.PIPE else subprocess.STDOUT,
        )

    def output(self, *command: object) -> str:
        """What a Python program prints on the machine."""
        with self.start(*command) as process:
            out, _ = process.communicate(timeout=200)
        assert process.returncode == 0, out.decode()
        return out.decode()

    def wait_for(self, url: str) -> None:
        """Returns when somebody answers there."""
        self.output("-c", _WAIT, url)

    def cut_off(self) -> None:
        """Takes the machine off the network; it isn't told, and nobody else is."""
        _ip("-n", self.name, "link", "set", "eth0", "down")


@contextlib.contextmanager
def machines(count: int, variables: Mapping[str, str]) -> Iterator[list[Machine]]:
    """So many machines on one network, the first at :data:`HEAD`; a test is skipped where there can't be any."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root on Linux, and the program ip")
    made = [Machine(f"rb{os.getpid()}-{n}", f"10.99.0.{n + 1}", variables) for n in range(count)]
    with contextlib.ExitStack() as stack:
        for machine in made:
            try:
                _ip("netns", "add", machine.name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"network namespaces can't be made here: {error.stderr.decode().strip()}")
            stack.callback(_ip, "netns", "del", machine.name)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        _connect(made)
        yield made


def _connect(made: list[Machine]) -> None:
    head = made[0].name
    _ip("-n", head, "link", "add", "bridge", "type", "bridge")
    _ip("-n", head, "addr", "add", f"{HEAD}/24", "dev", "bridge")
    _ip("-n", head, "link", "set", "bridge", "up")
    for number, machine in enumerate(made[1:]):
        port = f"port{number}"
        _ip("-n", head, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
        _ip("-n", head, "link", "set", port, "master", "bridge", "up")
        _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        _ip("-n", machine.name, "link", "set", "eth0", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def forwarder(port: int, unix_socket: Path) -> tuple[str, str, str, int, Path]:
    """The program that makes a service of this machine, which listens at a file, one of the head's."""
    return "-c", _FORWARD, HEAD, port, unix_socket
