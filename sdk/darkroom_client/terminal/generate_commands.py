"""The commands that generate images: txt2img, img2img, inpaint, edit, upscale, batch."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from darkroom_client.blocking.client import Client
from darkroom_client.core.call import PICTURE_LISTS, PICTURES
from darkroom_client.core.lora import Lora
from darkroom_client.core.requests import Edit, Img2Img, Inpaint, Request, Txt2Img, Upscale
from darkroom_client.core.sources import REFERENCE
from darkroom_client.terminal import batch as batches
from darkroom_client.terminal.batch import Asked
from darkroom_client.terminal.exit_codes import Exit, with_exit_code
from darkroom_client.terminal.fields import Field, fields, lora
from darkroom_client.terminal.file_names import STDOUT, FileNames
from darkroom_client.terminal.running import ResponseOptions, Run

# A row of a batch whose turn has not come is worth more patience than a person at a prompt.
BATCH_RETRIES = 10

SHORT = {
    "num_inference_steps": ("--steps",),
    "num_images": ("-n",),
    "width": ("-W",),
    "height": ("-H",),
    "negative_prompt": ("--negative",),
    "mask_image": ("--mask",),
    "references": ("-r", "--reference"),
    "seed": ("-s",),
    "model": ("-m",),
}

STDIN = "-"

Function = Callable[..., None]


class PictureFile(click.Path):
    """A picture's file, `image:<id>` of one that the server has, or `-` for standard input."""

    name = "picture"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, allow_dash=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and value.startswith(REFERENCE):
            return value
        return super().convert(value, param, ctx)


def of_fields(kind: type[Request]) -> Callable[[Function], Function]:
    """An option for each field of a request but what it is made from, which is an argument."""

    def decorate(function: Function) -> Function:
        of_what = "image" if kind is Upscale else "prompt"
        for field in reversed(tuple(fields(kind).values())):
            if field.name != of_what:
                function = _option(field)(function)
        return function

    return decorate


def _option(field: Field) -> Callable[[Function], Function]:
    flag = "--" + field.name.replace("_", "-")
    names = (*SHORT.get(field.name, ()), flag, field.name)
    text = field.text.replace("`Client.", "`darkroom-client ").replace("LoRAs", "LoRA")
    if field.kind is Lora:
        return click.option(
            "--lora", "loras", multiple=True, metavar="NAME[:SCALE]", help="May be repeated."
        )
    if field.name in PICTURE_LISTS:
        names = (*SHORT[field.name], field.name)
        text = f"{text} May be repeated."
        return click.option(*names, type=PictureFile(), multiple=True, required=True, help=text)
    if field.name in PICTURES:
        return click.option(*names, type=PictureFile(), required=field.required, help=text)
    if field.kind is bool:
        names = (f"{flag}/--no-{flag[2:]}", field.name)
        return click.option(*names, default=None, help=text)
    kind = click.Choice(field.choices) if field.choices else field.kind
    return click.option(*names, type=kind, required=field.required, help=text)


def of_running(function: Function) -> Function:
    """The options that all commands here share."""
    for option in (
        click.option("--timeout", "timeout_s", type=float, help="Seconds to wait for each job."),
        click.option("--no-wait", is_flag=True, help="Print the job's id and leave it to itself."),
        click.option("--json", "as_json", is_flag=True, help="Print each job as a line of JSON."),
        click.option("--watch", "-w", is_flag=True, help="Show how the picture comes along."),
        click.option("--url", help="Of the server; default is DARKROOM_URL, or who was paired."),
        click.option(
            "-o", "--output", help="File (.png, .jpg, .webp), folder, or - for standard output."
        ),
    ):
        function = option(function)
    return function


def prompts(argument: str | None) -> list[str]:
    """The prompts that are meant: the argument, or each line of standard input.

    Raises:
        ValueError: there is none.
    """
    if argument is not None and argument != "-":
        return [argument]
    if argument is None and sys.stdin.isatty():
        raise ValueError("say a PROMPT, or - to read one from each line of standard input")
    lines = [line.strip() for line in sys.stdin]
    found = [line for line in lines if line]
    if not found:
        raise ValueError("there is no prompt on standard input")
    return found


def draw(kind: type[Txt2Img], prompt: str | None, given: dict[str, Any]) -> None:
    """Run one request, or one for each prompt that comes in."""
    options, output, url = _manner(given)
    given["loras"] = [lora(text) for text in given["loras"]] or None
    lists = {name: given[name] for name in PICTURE_LISTS if name in given}
    named = [given.get(name) for name in PICTURES]
    named += [picture for listed in lists.values() for picture in listed]
    if STDIN in named:
        if prompt in (None, "-") or named.count(STDIN) > 1:
            raise ValueError("standard input is one thing: a picture, or prompts")
        data = sys.stdin.buffer.read()
        given |= {name: data for name in PICTURES if given.get(name) == STDIN}
        for name, listed in lists.items():
            given[name] = [data if picture == STDIN else picture for picture in listed]
    _run([Asked(kind(text, **given), text) for text in prompts(prompt)], options, output, url)


def _manner(given: dict[str, Any]) -> tuple[ResponseOptions, str | None, str | None]:
    """Take out of a command's options what is no field of a request."""
    as_json, output = given.pop("as_json"), given.pop("output")
    if output == STDOUT and (as_json or sys.stdout.isatty()):
        where = "a terminal" if sys.stdout.isatty() else "standard output beside JSON"
        raise ValueError(f"a picture is not written to {where}; say a file with -o")
    waits = not given.pop("no_wait")
    options = ResponseOptions(given.pop("watch"), as_json, waits, given.pop("timeout_s"))
    return options, output, given.pop("url")


def _run(
    requests: list[Asked],
    options: ResponseOptions,
    output: str | None,
    url: str | None,
    **more: Any,
) -> None:
    names = FileNames(output, len(requests))
    with Client(url, **more) as client:
        failed = Run(client, names, options).all(requests)
    if failed:
        raise click.exceptions.Exit(Exit.FAILED)


@click.command()
@click.argument("prompt", required=False)
@of_running
@of_fields(Txt2Img)
@with_exit_code
def txt2img(prompt: str | None, **given: Any) -> None:
    """Develop a picture from words."""
    draw(Txt2Img, prompt, given)


@click.command()
@click.argument("prompt", required=False)
@of_running
@of_fields(Img2Img)
@with_exit_code
def img2img(prompt: str | None, **given: Any) -> None:
    """Develop a picture from another one."""
    draw(Img2Img, prompt, given)


@click.command()
@click.argument("prompt", required=False)
@of_running
@of_fields(Inpaint)
@with_exit_code
def inpaint(prompt: str | None, **given: Any) -> None:
    """Repaint the white part of a mask."""
    draw(Inpaint, prompt, given)


@click.command()
@click.argument("prompt", required=False)
@of_running
@of_fields(Edit)
@with_exit_code
def edit(prompt: str | None, **given: Any) -> None:
    """Change pictures as the prompt says: --reference a.png --reference b.png."""
    draw(Edit, prompt, given)


@click.command()
@click.argument("image", type=PictureFile())
@of_running
@of_fields(Upscale)
@with_exit_code
def upscale(image: str | bytes, **given: Any) -> None:
    """Make IMAGE larger by a network, one of `darkroom-client upscalers`.

    Without --upscaler the server chooses one, and without --scale it doubles width and height.
    """
    options, output, url = _manner(given)
    if image == STDIN:
        image = sys.stdin.buffer.read()
    _run([Asked(Upscale(image=image, **given), "the picture")], options, output, url)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@of_running
@click.option("--at-once", type=click.IntRange(1, 64), default=4, help="Jobs on their way.")
@with_exit_code
def batch(file: str, at_once: int, **given: Any) -> None:
    """Run each row of FILE: JSON lines, or CSV whose first row names the fields.

    Nothing is sent until all rows are well.
    """
    options, output, url = _manner(given)
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    requests = batches.read(text)
    if not requests:
        raise ValueError(f"there is nothing in {file}")
    options = dataclasses.replace(options, at_once=at_once)
    _run(requests, options, output, url, max_retries=BATCH_RETRIES)
