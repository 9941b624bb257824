"""Serves the page and a socket a visitor, to this machine only."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import WSMsgType, web

from playground.visitor import Player, Visitor

__all__ = ["HOST", "listen", "make_app"]

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

LARGEST = 2**20
"""Bytes of a message, beyond which the socket closes."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src "
    "'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}

SCRIPTS = ("/writing.js", "/sound.js", "/page.js")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(player: Player) -> web.Application:
    """The page at /, its scripts beside it, and its socket at /socket."""
    # One thread for all models: torch's random state, which every stream exchanges for its own, is
    # the process's. Answers are short, so that visitors take turns.
    pool = ThreadPoolExecutor(1, "model")
    texts = {
        path: Path(__file__).with_name(path.lstrip("/") or "page.html").read_text(encoding="utf-8")
        for path in ("/", *SCRIPTS)
    }

    async def show(request: web.Request) -> web.Response:
        kind = "text/javascript" if request.path in SCRIPTS else "text/html"
        return web.Response(text=texts[request.path], content_type=kind, headers=HEADERS)

    async def converse(request: web.Request) -> web.WebSocketResponse:
        channel = web.WebSocketResponse(max_msg_size=LARGEST, heartbeat=30)
        await channel.prepare(request)
        visitor, loop = Visitor(player), asyncio.get_running_loop()
        try:
            await channel.send_json(player.about())
            async for message in channel:
                if message.type is not WSMsgType.TEXT:
                    await channel.send_json({"type": "error", "text": "messages must be text"})
                    continue
                try:
                    frames = await loop.run_in_executor(pool, visitor.answer, message.data)
                except ValueError as error:
                    await channel.send_json({"type": "error", "text": str(error)})
                else:
                    await channel.send_bytes(frames)
        except ConnectionResetError:
            log.debug("a visitor left in the middle of an answer")
        return channel

    async def close(app: web.Application) -> AsyncIterator[None]:
        yield
        pool.shutdown(cancel_futures=True)

    app = web.Application(middlewares=[only_from_here])
    app.add_routes([web.get("/socket", converse), *(web.get(path, show) for path in texts)])
    app.cleanup_ctx.append(close)
    return app


@web.middleware
async def only_from_here(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses other web pages: those that open the socket, whose Origin is their own, and those
    whose name has been made to point here, which the Host tells."""
    name = request.host.rpartition(":")[0] or request.host
    origin = request.headers.get("Origin")
    if name not in (HOST, "localhost") or origin not in (None, f"http://{request.host}"):
        raise web.HTTPForbidden(text="The playground is for its own page only.")
    return await handler(request)


def listen(port: int) -> socket.socket:
    """A socket on this machine's loopback.

    Raises:
        OSError: if the port cannot be had; names one that can.
    """
    if not 0 <= port < 65536:
        raise ValueError(f"--port {port} is not from 0 to 65535")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is in use" if error.errno == errno.EADDRINUSE else "is reserved"
        with socket.create_server((HOST, 0)) as free:
            other = free.getsockname()[1]
        raise OSError(f"port {port} {why}; choose another, such as --port {other}") from None
