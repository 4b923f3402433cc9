"""The official MCP client drives our MCP server, which asks the real Darkroom."""

import asyncio
import base64
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

from tests.serving import RunningServer, free_port
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.slow

FAST = {"num_inference_steps": 2, "seed": 7}


def over_stdio(server: RunningServer) -> StdioServerParameters:
    arguments = ["-m", "darkroom_client", "mcp", "--url", server.url]
    path = [entry for entry in sys.path if entry]
    return StdioServerParameters(
        command=sys.executable, args=arguments, env={"PYTHONPATH": ":".join(path)}
    )


def text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def pictures(result: CallToolResult) -> list[Image.Image]:
    assert not result.is_error, text(result)
    return [
        Image.open(io.BytesIO(base64.b64decode(part.data)))
        for part in result.content
        if isinstance(part, ImageContent)
    ]


def test_an_assistant_uses_the_box(server: RunningServer, photo: Path, mask: Path) -> None:
    steps: list[tuple[float, float | None]] = []

    async def told(done: float, of: float | None, _: str | None) -> None:
        steps.append((done, of))

    async def talk() -> None:
        async with Client(over_stdio(server)) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {"txt2img", "img2img", "inpaint", "edit", "list_models"}
            assert "tintype (default)" in text(await client.call_tool("list_models", {}))

            asked = {"prompt": "a red fox", "num_images": 2, **FAST}
            first = await client.call_tool("txt2img", asked, progress_callback=told)
            assert [picture.format for picture in pictures(first)] == ["PNG", "PNG"]
            assert steps[-1] == (4, 4)
            reference = text(first).partition(": ")[0]
            assert reference.startswith("image:")

            asked = {"prompt": "a cat", "image": reference, "strength": 0.5, **FAST}
            assert len(pictures(await client.call_tool("img2img", asked))) == 1

            encoded = [base64.b64encode(file.read_bytes()).decode() for file in (photo, mask)]
            asked = {"prompt": "a cat", "image": encoded[0], "mask_image": encoded[1], **FAST}
            assert len(pictures(await client.call_tool("inpaint", asked))) == 1

            wrong = await client.call_tool("txt2img", {"prompt": "a fox", "width": 12})
            assert wrong.is_error
            assert "width: " in text(wrong)
            # An assistant that was talked into it does not get at files.
            asked = {"prompt": "a cat", "image": str(photo), **FAST}
            assert "base64" in text(await client.call_tool("img2img", asked))

    asyncio.run(talk())


def test_a_call_that_is_given_up_is_cancelled(idle_server: RunningServer) -> None:
    prompt = "a fox that nobody waits for"

    def job() -> dict[str, str] | None:
        jobs = idle_server.http.get("/jobs").json()["jobs"]
        return next((job for job in jobs if job["request"]["prompt"] == prompt), None)

    async def until(status: str) -> None:
        await asyncio.to_thread(eventually, lambda: (found := job()) and found["status"] == status)

    async def talk() -> None:
        async with Client(over_stdio(idle_server)) as client:
            call = asyncio.create_task(client.call_tool("txt2img", {"prompt": prompt}))
            await until("queued")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until("cancelled")

    asyncio.run(talk())


@contextmanager
def over_http(server: RunningServer) -> Iterator[str]:
    port = free_port()
    arguments = ["-m", "darkroom_client", "mcp", "--url", server.url, "--port", str(port)]
    with psutil.Popen([sys.executable, *arguments]) as process:
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


def test_an_assistant_comes_by_http_and_a_web_page_does_not(server: RunningServer) -> None:
    async def talk(url: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            async with httpx2.AsyncClient(timeout=PATIENCE_S) as http:
                while True:
                    try:
                        page = await http.post(url, headers={"origin": "http://evil.example"})
                        break
                    except httpx2.ConnectError:
                        await asyncio.sleep(0.1)
            assert page.status_code in (400, 403)
            async with Client(url) as client:
                asked = {"prompt": "a red fox", **FAST}
                assert len(pictures(await client.call_tool("txt2img", asked))) == 1

    with over_http(server) as url:
        asyncio.run(talk(url))
