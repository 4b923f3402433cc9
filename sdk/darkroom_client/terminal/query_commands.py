"""The commands that list and fetch: jobs, images, models, schedulers, upscalers, pairing."""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from darkroom_client.blocking.client import Client
from darkroom_client.core.errors import DarkroomError
from darkroom_client.core.records import JobStatus
from darkroom_client.discovery import LISTEN_S
from darkroom_client.terminal.exit_codes import Exit, print_note, report, with_exit_code
from darkroom_client.terminal.plain import jsonable, one_line, plain

PAIRING = "#pair="
PROMPT_WIDTH = 48

Function = Callable[..., None]


def of_asking(function: Function) -> Function:
    """The options that all commands here share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print lines of JSON."),
        click.option("--url", help="Of the server; default is DARKROOM_URL, or who was paired."),
    ):
        function = option(function)
    return function


def answer(as_json: bool, record: Any, line: str) -> None:
    """A record as JSON or as a line for people."""
    click.echo(json.dumps(jsonable(record)) if as_json else plain(line))


@click.command()
@click.option("--status", type=click.Choice([str(status) for status in JobStatus]))
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@of_asking
@with_exit_code
def jobs(status: str | None, limit: int, url: str | None, as_json: bool) -> None:
    """List my jobs, newest first."""
    with Client(url) as client:
        found = client.jobs(JobStatus(status) if status else None, page_size=min(limit, 100))
        for job in itertools.islice(found, limit):
            when = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
            prompt = one_line(_words(job.request), PROMPT_WIDTH)
            answer(as_json, job.record, f"{job.id}  {when}  {job.status:9}  {job.task}  {prompt}")


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@of_asking
@with_exit_code
def images(limit: int, url: str | None, as_json: bool) -> None:
    """List my pictures, newest first."""
    with Client(url) as client:
        pairs = ((job, image) for job in client.jobs() for image in job.record.images)
        for job, image in itertools.islice(pairs, limit):
            prompt = one_line(_words(job.request), PROMPT_WIDTH)
            size = f"{image.width}×{image.height}"
            answer(as_json, image, f"{image.id}  {size}  seed {image.seed}  {prompt}")


@click.command()
@click.argument("picture")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--url", help="Of the server; default is DARKROOM_URL, or who was paired.")
@with_exit_code
def image(picture: str, output: Path | None, url: str | None) -> None:
    """Save the PICTURE of this id; its file's suffix chooses the format."""
    identity = picture.removeprefix("image:")
    with Client(url) as client:
        file = output or Path(f"{Path(identity).name}.png")
        click.echo(client.image(identity).save(file))


@click.command()
@click.argument("job")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--url", help="Of the server; default is DARKROOM_URL, or who was paired.")
@with_exit_code
def explain(job: str, output: Path | None, url: str | None) -> None:
    """Save how the pictures of a JOB were made, which was asked for with --explain.

    The folder has each map of attention over the picture, the steps, and the rest as JSON.
    """
    with Client(url) as client:
        folder = output or Path(f"{Path(job).name}-explain")
        click.echo(client.job(job).explain().save(folder))


@click.command()
@click.argument("job", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that have not ended.")
@of_asking
@with_exit_code
def cancel(job: tuple[str, ...], every: bool, url: str | None, as_json: bool) -> None:
    """Cancel each JOB: at once while it waits, within a step when it runs."""
    if bool(job) == every:
        raise ValueError("say which jobs, or --all")
    with Client(url) as client:
        ids = list(job)
        if every:
            waiting = (JobStatus.QUEUED, JobStatus.RUNNING)
            ids = [found.id for status in waiting for found in client.jobs(status)]
        failed: DarkroomError | None = None
        for identity in ids:
            try:
                ended = client.job(identity).cancel()
            except DarkroomError as error:
                if failed is not None:
                    report(failed)
                failed = error
            else:
                answer(as_json, ended.record, f"{ended.id}  {ended.status}")
        if failed is not None:
            raise failed


@click.command()
@of_asking
@with_exit_code
def models(url: str | None, as_json: bool) -> None:
    """List what may be asked for as --model."""
    with Client(url) as client:
        for model in client.models():
            star = "*" if model.default else " "
            size = f"{model.defaults.width}×{model.defaults.height}"
            answer(as_json, model, f"{star} {model.name}  {model.family}  {size}")


@click.command()
@of_asking
@with_exit_code
def schedulers(url: str | None, as_json: bool) -> None:
    """List what may be asked for as --scheduler."""
    with Client(url) as client:
        for scheduler in client.schedulers():
            answer(as_json, scheduler, f"{scheduler.name}  {scheduler.title}")


@click.command()
@of_asking
@with_exit_code
def upscalers(url: str | None, as_json: bool) -> None:
    """List what may be asked for as --upscaler."""
    with Client(url) as client:
        for upscaler in client.upscalers():
            text = f"{upscaler.name}  {upscaler.architecture}  ×{upscaler.scale}"
            answer(as_json, upscaler, text)


@click.command()
@click.option("--timeout", "timeout_s", type=float, default=LISTEN_S, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print lines of JSON.")
@with_exit_code
def discover(timeout_s: float, as_json: bool) -> None:
    """List servers on the local network. Pair with one to use it."""
    found = Client.discover(timeout_s)
    for server in found:
        answer(as_json, server, f"{server.url}  {server.name}  {server.version}")
    if not found:
        print_note("no server announces itself on the network; give its address with --url")
        raise click.exceptions.Exit(Exit.NOT_FOUND)


@click.command()
@click.argument("code", required=False)
@click.option("--url", help="Of the server; a pairing address has it already.")
@click.option("--name", help="By which the owner knows this device; default is this machine's.")
@with_exit_code
def pair(code: str | None, url: str | None, name: str | None) -> None:
    """Turn a pairing CODE into this device's token, and keep it.

    CODE may be the whole address that the server's terminal shows. `darkroom pair` on the server
    makes a new one.
    """
    code = code or click.prompt("Code", err=True)
    address, mark, inside = code.partition(PAIRING)
    if mark:
        url, code = url or address, inside
    with Client(url) as client:
        file = client.pair(code, name)
        print_note(f"this device may use {client.base_url}; its token is in {file}")


def _words(request: Mapping[str, Any]) -> str:
    """What a job was asked in: a prompt, or which upscaler."""
    return str(request.get("prompt", request.get("upscaler", "")))
