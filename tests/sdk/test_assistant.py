"""What an assistant is told when it asks for something wrong."""

import asyncio
from typing import Any

import pytest
from mcp import Client
from mcp_types import TextContent

from darkroom_client import AsyncClient
from darkroom_client.assistant import server as tools_of
from tests.serving import RunningServer, free_port


def call(url: str, tool: str, **arguments: Any) -> str:
    """The text of a call that fails."""

    async def talk() -> str:
        async with AsyncClient(url) as asked, Client(tools_of(asked)) as client:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            return "".join(part.text for part in result.content if isinstance(part, TextContent))

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("steps", "; did you mean num_inference_steps?"),
        ("negative_promt", "; did you mean negative_prompt?"),
        ("zzz", ""),
    ],
)
def test_an_argument_that_a_tool_does_not_have_is_refused(argument: str, hint: str) -> None:
    said = call("http://127.0.0.1:9", "txt2img", prompt="a fox", **{argument: 3})

    assert said == f"there is no argument {argument}{hint}"


def test_the_tools_say_that_they_take_nothing_else_and_which_version_they_are() -> None:
    async def talk() -> None:
        async with AsyncClient("http://127.0.0.1:9") as asked, Client(tools_of(asked)) as client:
            tools = (await client.list_tools()).tools
            assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
            assert client.server_info.version

    asyncio.run(talk())


def test_a_server_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert url in call(url, "list_models")


def test_a_wrong_value_is_told_once(idle_server: RunningServer) -> None:
    said = call(idle_server.url, "txt2img", prompt="a fox", width=12)

    assert said.count("multiple of 8") == 1
