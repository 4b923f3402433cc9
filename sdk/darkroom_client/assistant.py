"""A Darkroom server as tools of an assistant (Model Context Protocol). Needs the extras `[mcp]`."""

import asyncio
import base64
import binascii
import difflib
from collections.abc import Iterable
from importlib.metadata import version
from typing import Annotated, Any, TypeAlias

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from darkroom_client.asynchronous.client import AsyncClient
from darkroom_client.asynchronous.job import AsyncJob
from darkroom_client.asynchronous.picture import AsyncImage
from darkroom_client.core.errors import APIError, DarkroomError
from darkroom_client.core.events import ProgressEvent
from darkroom_client.core.requests import Edit, Img2Img, Inpaint, Txt2Img
from darkroom_client.core.sources import REFERENCE

# Assistants put a whole answer into their context; common ones refuse more than a megabyte.
MOST_BYTES = 500_000
SMALLER_SIDE = 768  # pixels
URL_SAFE = str.maketrans("-_", "+/")  # base64's other alphabet
MOST_BODY_BYTES = 64 * 2**20

# Of other programs, for our arguments.
OTHER_NAMES = {
    "steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "n": "num_images",
    "batch_size": "num_images",
    "denoising_strength": "strength",
    "mask": "mask_image",
    "init_image": "image",
    "size": "width",
}

MAKES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)

Shown: TypeAlias = list[TextContent | ImageContent]
Prompt = Annotated[str, Field(description="What to draw; (word:1.3) weighs a word.")]
Negative = Annotated[str | None, Field(description="What to keep away from.")]
Side = Annotated[int | None, Field(description="Pixels, a multiple of 8; the model's by default.")]
Steps = Annotated[int | None, Field(description="Denoising steps; the model's by default.")]
Guidance = Annotated[float | None, Field(description="How closely to follow the prompt, 0 to 30.")]
Count = Annotated[int | None, Field(description="Pictures to make, 1 to 8.")]
Seed = Annotated[int | None, Field(description="The same seed makes the same picture again.")]
Name = Annotated[str | None, Field(description="One of list_models.")]
Source = Annotated[str, Field(description="image:<id> of an earlier picture, or base64 of a file.")]
Strength = Annotated[float | None, Field(description="How much may change, above 0 to 1.")]
Sources = Annotated[
    list[str],
    Field(description="Each image:<id> of an earlier picture, or base64; the prompt's order."),
]
Mask = Annotated[str, Field(description="As image and as large; what is white is repainted.")]


def server(client: AsyncClient) -> MCPServer[Any]:
    """The tools, which all ask this client's server."""

    async def txt2img(
        context: Context[Any],
        prompt: Prompt,
        negative_prompt: Negative = None,
        width: Side = None,
        height: Side = None,
        num_inference_steps: Steps = None,
        guidance_scale: Guidance = None,
        num_images: Count = None,
        seed: Seed = None,
        model: Name = None,
    ) -> Shown:
        """Develop pictures from words."""
        request = Txt2Img(
            prompt, negative_prompt=negative_prompt, width=width, height=height,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            num_images=num_images, seed=seed, model=model,
        )  # fmt: skip
        return await _develop(client, request, context)

    async def img2img(
        context: Context[Any],
        prompt: Prompt,
        image: Source,
        strength: Strength = None,
        negative_prompt: Negative = None,
        num_inference_steps: Steps = None,
        guidance_scale: Guidance = None,
        num_images: Count = None,
        seed: Seed = None,
        model: Name = None,
    ) -> Shown:
        """Develop pictures from another one and words."""
        request = Img2Img(
            prompt, image=_source(image), strength=strength, negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            num_images=num_images, seed=seed, model=model,
        )  # fmt: skip
        return await _develop(client, request, context)

    async def inpaint(
        context: Context[Any],
        prompt: Prompt,
        image: Source,
        mask_image: Mask,
        strength: Strength = None,
        negative_prompt: Negative = None,
        num_inference_steps: Steps = None,
        guidance_scale: Guidance = None,
        num_images: Count = None,
        seed: Seed = None,
        model: Name = None,
    ) -> Shown:
        """Repaint the white part of a mask."""
        request = Inpaint(
            prompt, image=_source(image), mask_image=_source(mask_image), strength=strength,
            negative_prompt=negative_prompt, num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale, num_images=num_images, seed=seed, model=model,
        )  # fmt: skip
        return await _develop(client, request, context)

    async def edit(
        context: Context[Any],
        prompt: Prompt,
        references: Sources,
        width: Side = None,
        height: Side = None,
        num_inference_steps: Steps = None,
        guidance_scale: Guidance = None,
        num_images: Count = None,
        seed: Seed = None,
        model: Name = None,
    ) -> Shown:
        """Change pictures as the prompt says; for models whose tasks have edit."""
        request = Edit(
            prompt, references=[_source(text) for text in references], width=width, height=height,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            num_images=num_images, seed=seed, model=model,
        )  # fmt: skip
        return await _develop(client, request, context)

    async def list_models() -> str:
        """List the models that may be asked for, and what they take by default."""
        try:
            found = await client.models()
        except DarkroomError as error:
            raise ToolError(_words(error)) from error
        return "\n".join(
            f"{model.name}{' (default)' if model.default else ''}: {model.description}; "
            f"{', '.join(model.tasks)}; {model.defaults.width}×{model.defaults.height}, "
            f"sides up to {model.limits.max_side}, {model.defaults.num_inference_steps} steps"
            for model in found
        )

    tools: list[Tool] = [
        ExactTool.from_function(tool, annotations=annotations, structured_output=False)
        for tool, annotations in (
            *((tool, MAKES) for tool in (txt2img, img2img, inpaint, edit)),
            (list_models, READS),
        )
    ]
    for tool in tools:
        tool.parameters["additionalProperties"] = False
    return MCPServer(
        "darkroom",
        instructions="Pictures from a server on the local network. Results name each picture as "
        "image:<id>, by which img2img, inpaint and edit take it up again.",
        version=version("darkroom-client"),
        tools=tools,
        log_level="WARNING",
    )


class ExactTool(Tool):
    """A tool that refuses arguments which it does not have, instead of leaving them out."""

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        known = self.parameters["properties"]
        for name in arguments:
            if name not in known:
                raise ToolError(f"there is no argument {name}{_hint(name, known)}")
        return await super().run(arguments, context, convert_result)


def _hint(name: str, known: Iterable[str]) -> str:
    """Which argument was probably meant."""
    meant = OTHER_NAMES.get(name)
    if meant is None or meant not in known:
        meant = next(iter(difflib.get_close_matches(name, known, 1)), None)
    return f"; did you mean {meant}?" if meant else ""


def run(url: str | None, port: int | None) -> None:
    """Serve until the caller leaves: standard input and output, or HTTP on this machine alone.

    These tools use the server with this user's token, so they are not offered to the network.

    Args:
        url: of the Darkroom server, or None.
        port: for HTTP at `/mcp`; None is standard input and output.
    """

    async def serve() -> None:
        async with AsyncClient(url) as client:
            mcp = server(client)
            if port is None:
                await mcp.run_stdio_async()
            else:
                await mcp.run_streamable_http_async(
                    host="127.0.0.1", port=port, max_request_body_size=MOST_BODY_BYTES
                )

    asyncio.run(serve())


async def _develop(client: AsyncClient, request: Txt2Img, context: Context[Any]) -> Shown:
    """Run a job, report its progress, and show its pictures. An abandoned call cancels it."""
    try:
        job = await client.submit(request)
        try:
            async for event in job:
                if isinstance(event, ProgressEvent):
                    await context.report_progress(event.progress.step, event.progress.steps)
            await job.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await job.cancel()
            raise
        return [_summary(job), *[await _content(image) for image in job.images]]
    except DarkroomError as error:
        raise ToolError(_words(error)) from error


def _summary(job: AsyncJob) -> TextContent:
    lines = [
        f"{image.reference}: {image.width}×{image.height}, seed {image.seed}"
        for image in job.images
    ]
    return TextContent(type="text", text="\n".join([*lines, *job.notes]))


async def _content(image: AsyncImage) -> ImageContent:
    """The picture as stored, or a smaller one that fits into an answer."""
    if image.size_bytes <= MOST_BYTES:
        data, kind = await image.bytes(), image.content_type
    else:
        data, kind = await image.thumbnail(SMALLER_SIDE), "image/webp"
    return ImageContent(type="image", data=base64.b64encode(data).decode(), mime_type=kind)


def _source(text: str) -> str | bytes:
    """A picture that an assistant names. Never a path: a prompt could have it read any file.

    Raises:
        ToolError: it is neither of what is taken.
    """
    if text.startswith(REFERENCE):
        return text
    bare = "".join(text.rpartition(",")[2].split()).translate(URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ToolError("a picture is image:<id> of an earlier one, or base64 of a file") from None


def _words(error: DarkroomError) -> str:
    """An error for an assistant, who can mend the fields."""
    fields = error.errors if isinstance(error, APIError) else ()
    more = (f"{field.pointer[2:]}: {field.detail}" for field in fields)
    return "; ".join([str(error), *(text for text in more if text not in str(error))])
