"""The page's socket: several visitors, those who misbehave, and those who are not asked in."""

import asyncio
import json
import re
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer
from support.helpers import Command
from support.playground_run import DRAWING, player, write_run
from support.small_corpora import write

from playground.server import LARGEST, make_app
from playground.visitor import Player
from vrnn import VRNN
from vrnn.likelihoods import PenMixture

TestClient.__test__ = TestServer.__test__ = False  # They are no tests.

Client = TestClient[Any, Any]


@pytest.fixture
def writer(make_model: Callable[..., VRNN]) -> Player:
    return player(make_model(VRNN, PenMixture(components=3)), "pen", [])


def visit(player: Player, visitors: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """Serves the page while the visitors are there, for a minute at most."""

    async def serve() -> None:
        async with TestClient(TestServer(make_app(player))) as client:
            await asyncio.wait_for(visitors(client), 60)

    asyncio.run(serve())


async def enter(client: Client, **headers: str) -> ClientWebSocketResponse:
    channel = await client.ws_connect("/socket", headers=headers)
    assert (await channel.receive_json())["type"] == "about"
    return channel


async def ask(channel: ClientWebSocketResponse, **message: object) -> np.ndarray:
    await channel.send_json(message)
    return np.frombuffer(await channel.receive_bytes(), "<f4").reshape(-1, 3)


async def line(channel: ClientWebSocketResponse, seed: int, parts: int = 4) -> np.ndarray:
    await ask(channel, type="start", seed=seed)
    return np.concatenate([await ask(channel, type="more", frames=8) for _ in range(parts)])


def test_a_page_streams_what_its_seed_says(writer: Player) -> None:
    async def visitors(client: Client) -> None:
        own = {"Origin": f"http://127.0.0.1:{client.port}"}
        frames = await line(await enter(client, **own), seed=11)
        expected = writer.model.normaliser.raw(writer.model.generate(32, seed=11))[:, 0]
        np.testing.assert_allclose(frames, expected, rtol=1e-4, atol=1e-3)

    visit(writer, visitors)


def test_visitors_at_once_have_streams_of_their_own(writer: Player) -> None:
    async def visitors(client: Client) -> None:
        channels = [await enter(client) for _ in range(4)]
        alone = [await line(channels[0], seed) for seed in range(4)]
        together = await asyncio.gather(*(line(c, seed) for seed, c in enumerate(channels)))
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)
        assert not np.array_equal(alone[0], alone[1])

    visit(writer, visitors)


def test_garbage_is_answered_and_nobody_else_notices(writer: Player) -> None:
    async def visitors(client: Client) -> None:
        good, bad = await enter(client), await enter(client)
        expected = await line(good, seed=2)
        following = asyncio.create_task(line(good, seed=2))
        for text in ("no JSON", '{"type": "more", "frames": 4}', '{"type": 1}', "[" * 50_000):
            await bad.send_str(text)
            answer = await bad.receive_json()
            assert answer["type"] == "error" and answer["text"]
        await bad.send_bytes(b"\xff\x00")
        assert (await bad.receive_json())["text"] == "messages must be text"
        assert len(await line(bad, seed=1)) == 32  # It may still behave.
        np.testing.assert_array_equal(await following, expected)

    visit(writer, visitors)


def test_a_message_without_measure_closes_its_own_socket_only(writer: Player) -> None:
    async def visitors(client: Client) -> None:
        good, bad = await enter(client), await enter(client)
        endless = json.dumps({"type": "start", "strokes": [[[0, 0, 0]] * 1_000_000]})
        with suppress(ConnectionError):  # Of which the server reads the beginning only.
            await bad.send_str(endless)
        message = await bad.receive()
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
        assert len(await line(good, seed=1)) == 32
        assert LARGEST == 2**20

    visit(writer, visitors)


def test_who_leaves_in_the_middle_leaves_nothing_behind(writer: Player) -> None:
    async def visitors(client: Client) -> None:
        stays, leaves = await enter(client), await enter(client)
        await ask(leaves, type="start")
        for _ in range(20):
            await leaves.send_json({"type": "more", "frames": 64})
        await leaves.close()
        hasty = await enter(client)
        await hasty.send_json({"type": "start", "strokes": DRAWING})
        hasty._response.connection.transport.abort()
        assert len(await line(stays, seed=1)) == 32
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) < 8

    visit(writer, visitors)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Host": "example.org"},
        {"Host": "127.0.0.1.example.org:8000", "Origin": "http://127.0.0.1.example.org:8000"},
    ],
)
def test_other_pages_are_refused(writer: Player, headers: dict[str, str]) -> None:
    async def visitors(client: Client) -> None:
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/socket", headers=headers)
        assert refused.value.status == 403
        answer = await client.get("/", headers=headers)
        assert answer.status == 403 and "own page only" in await answer.text()

    visit(writer, visitors)


def test_the_page_needs_nothing_else(writer: Player) -> None:
    async def visitors(client: Client) -> None:
        answer = await client.get("/")
        page = await answer.text()
        assert answer.status == 200 and answer.content_type == "text/html"
        assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]
        scripts = re.findall(r'<script src="(\w+\.js)"></script>', page)
        assert len(scripts) == page.count(" src=") == 3
        for script in scripts:
            answer = await client.get(f"/{script}")
            assert answer.status == 200 and answer.content_type == "text/javascript"
            page += await answer.text()
        for loaded in ("@import", "import(", "url(", "fetch(", "https:"):
            assert loaded not in page
        assert (await client.get("/page.html")).status == 404

    visit(writer, visitors)


PROGRAM = "playground/__main__.py"


def test_a_port_in_use_is_named_with_another(tmp_path: Path, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        said = command.fails(PROGRAM, tmp_path, "--port", port)
    assert command.matches(
        rf"^playground: port {port} is in use; choose another, such as --port \d+\n$", said
    )
    assert "--port 70000 is not from 0 to 65535" in command.fails(
        PROGRAM, tmp_path, "--port", 70000
    )


def test_what_is_no_run_or_no_model_for_it_is_refused(tmp_path: Path, command: Command) -> None:
    options = ["--port", 0, "--no-browser"]
    said = command.fails(PROGRAM, tmp_path / "nothing", *options)
    assert "no checkpoint at" in said and said.count("\n") == 1
    music = write_run(
        tmp_path / "music",
        "model=vrnn_bernoulli",
        "data=jsb",
        f"data.root={write('jsb', tmp_path / 'jsb')}",
        lines=False,
    )
    said = command.fails(PROGRAM, music, *options)
    assert "is a model of jsb, whose frames are of the kind binary" in said
    assert "for handwriting (pen) and sound (audio)" in said and said.count("\n") == 1
