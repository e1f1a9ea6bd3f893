"""Real servers for tests, each a process of its own on 127.0.0.1, and a proxy that makes trouble on the way to one."""

import asyncio
import contextlib
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_START_S = 90


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """The endpoint of an S3 server."""
    port = free_port()
    # moto's package has no __main__: this is what its moto_server command does.
    script = "import sys; from moto.server import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, process)
            yield url
        finally:
            process.kill()


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Returns once the server answers anything."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server at {url} did not start")


@dataclass
class FaultProxy:
    """Passes requests on to a server, but for a share of them.

    Attributes:
        target: the server's endpoint.
        share: of the requests that get a fault, 0 to 1.
        kinds: ``503``, ``reset`` (nothing comes back), ``late_reset`` (the server has done it, the answer is lost),
            ``cut`` (half the answer), ``stall``.
        stall_s: how long a stalled request hangs.
        faults: how many there were.
    """

    target: str
    share: float = 0.0
    kinds: tuple[str, ...] = ("503", "reset", "late_reset", "cut")
    stall_s: float = 30.0
    faults: int = 0
    url: str = ""
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultProxy"]:
        """The proxy while it listens, in a thread of its own."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        loop = asyncio.new_event_loop()
        ready = threading.Event()
        thread = threading.Thread(target=self._serve, args=(loop, port, ready), daemon=True)
        thread.start()
        ready.wait(20)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)

    def _serve(self, loop: asyncio.AbstractEventLoop, port: int, ready: threading.Event) -> None:
        from aiohttp import ClientSession, DummyCookieJar, web

        asyncio.set_event_loop(loop)

        async def start() -> tuple[Any, Any]:
            session = ClientSession(auto_decompress=False, cookie_jar=DummyCookieJar())

            async def handle(request: Any) -> Any:
                return await self._handle(session, request)

            app = web.Application(client_max_size=1 << 30)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            return session, runner

        session, runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(session.close())
        loop.run_until_complete(runner.cleanup())
        loop.close()

    async def _handle(self, session: Any, request: Any) -> Any:
        from aiohttp import web

        kind = self._random.choice(self.kinds) if self._random.random() < self.share else None
        self.faults += kind is not None
        if kind == "503":
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>", content_type="text/xml")
        if kind == "stall":
            await asyncio.sleep(self.stall_s)
        if kind in ("reset", "stall"):
            request.transport.abort()
            return web.Response()
        body = await request.read()
        url = self.target + request.raw_path
        from yarl import URL

        async with session.request(
            request.method, URL(url, encoded=True), headers=request.headers, data=body, allow_redirects=False
        ) as answer:
            content = await answer.read()
        if kind == "late_reset":
            request.transport.abort()
            return web.Response()
        dropped = {"transfer-encoding", "connection", "date", "server"}
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in dropped}
        if kind == "cut" and len(content) > 1:
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            request.transport.abort()
            return response
        if request.method == "HEAD":
            return web.Response(status=answer.status, headers=headers)
        headers.pop("Content-Length", None)
        return web.Response(status=answer.status, headers=headers, body=content)
