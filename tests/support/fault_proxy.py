"""A proxy between this project and a server of object storage: it counts, delays, and makes trouble."""

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: Headers of the server that the proxy's own answer has anyway.
_OWN_HEADERS = frozenset({"transfer-encoding", "connection", "date", "server"})


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class FaultProxy:
    """Passes requests on to a server, but for a share of them.

    Attributes:
        target: the server's endpoint.
        share: of the requests that get a fault, 0 to 1.
        kinds: ``503``, ``reset`` (nothing comes back), ``late_reset`` (the server has done it, the answer is lost),
            ``cut`` (half the answer), ``stall``.
        stall_s: how long a stalled request hangs.
        latency_s: how much later every answer comes.
        lasts: after so many requests every one gets a fault; None for never.
        faults: how many there were.
        requests: method and path with query of each request, in order.
        most_at_once: the highest number of requests that were under way at the same time.
    """

    target: str
    share: float = 0.0
    kinds: tuple[str, ...] = ("503", "reset", "late_reset", "cut")
    stall_s: float = 30.0
    latency_s: float = 0.0
    lasts: int | None = None
    faults: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _under_way: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    @contextlib.contextmanager
    def running(self, port: int | None = None) -> Iterator["FaultProxy"]:
        """The proxy while it listens, in a thread of its own."""
        port = port or free_port()
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
        from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

        asyncio.set_event_loop(loop)

        async def start() -> tuple[Any, Any]:
            session = ClientSession(auto_decompress=False, cookie_jar=DummyCookieJar(), connector=TCPConnector(limit=0))

            async def handle(request: Any) -> Any:
                self._under_way += 1
                self.most_at_once = max(self.most_at_once, self._under_way)
                try:
                    return await self._handle(session, request)
                finally:
                    self._under_way -= 1

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
        left = asyncio.all_tasks(loop)  # of connections that were aborted
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    async def _handle(self, session: Any, request: Any) -> Any:
        from aiohttp import web

        self.requests.append((request.method, request.raw_path))
        is_gone = self.lasts is not None and len(self.requests) > self.lasts
        kind = self._random.choice(self.kinds) if is_gone or self._random.random() < self.share else None
        self.faults += kind is not None
        await asyncio.sleep(self.stall_s if kind == "stall" else self.latency_s)
        if kind == "503":
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>", content_type="text/xml")
        if kind in ("reset", "stall"):
            return _abort(request)
        status, headers, content = await self._ask(session, request)
        if kind == "late_reset":
            return _abort(request)
        if kind == "cut" and len(content) > 1:
            response = web.StreamResponse(status=status, headers=headers)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            request.transport.abort()
            return response
        if request.method == "HEAD":
            return web.Response(status=status, headers=headers)
        headers.pop("Content-Length", None)
        return web.Response(status=status, headers=headers, body=content)

    async def _ask(self, session: Any, request: Any) -> tuple[int, dict[str, str], bytes]:
        from yarl import URL

        body = await request.read()
        url = URL(self.target + request.raw_path, encoded=True)
        async with session.request(
            request.method, url, headers=request.headers, data=body or None, allow_redirects=False
        ) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN_HEADERS}
            return answer.status, headers, await answer.read()


def _abort(request: Any) -> Any:
    """Breaks the connection off; the response is never sent."""
    from aiohttp import web

    request.transport.abort()
    return web.Response()
