"""The owner's commands for models on the server: pull, pulls, delete-model."""

import click

from darkroom_client.blocking.client import Client
from darkroom_client.core.pulls import KINDS, Pull, PullPlan
from darkroom_client.core.records import JobStatus
from darkroom_client.terminal.exit_codes import Exit, print_note, with_exit_code
from darkroom_client.terminal.query_commands import answer, of_asking

GIB = 2**30


def gib(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / GIB:.2f} GiB"


def about(plan: PullPlan) -> list[str]:
    """What a download would be, in lines."""
    lines = [f"{plan.title}: {gib(plan.total_bytes)} as {plan.kind}/{plan.name}"]
    if plan.done_bytes:
        lines.append(f"{gib(plan.done_bytes)} of it have arrived before")
    room = "" if plan.fits_on_disk else ", which is not enough"
    lines.append(f"the server's disk has {gib(plan.free_bytes)} free{room}")
    if plan.memory_bytes is not None:
        slower = "; that does not fit, so it is slower" if plan.fits is False else ""
        lines.append(f"in memory it takes {gib(plan.memory_bytes)}{slower}")
    if plan.lacks is not None:
        lines.append(f"it cannot draw yet: {plan.lacks}")
    return lines


def line(pull: Pull) -> str:
    """How far a download is, in a line."""
    said = f"{pull.status}  {pull.kind}/{pull.name}  {pull.fraction:.0%} of {gib(pull.total_bytes)}"
    if pull.bytes_per_second:
        said += f", {pull.bytes_per_second / 1e6:.1f} MB/s"
    return said if pull.error is None else f"{said}: {pull.error.detail}"


@click.command()
@click.argument("source")
@click.option("--name", help="Of the model on the server; default is its own name.")
@click.option("--variant", help="Of the weights, such as fp16 or plain; default is the smallest.")
@click.option("--revision", help="Branch, tag or commit; default is the main branch.")
@click.option("--dry-run", is_flag=True, help="Only tell what it is, and whether it fits.")
@of_asking
@with_exit_code
def pull(
    source: str,
    name: str | None,
    variant: str | None,
    revision: str | None,
    dry_run: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Let the server download a model, LoRA, embedding, upscaler or VAE. For owners.

    SOURCE is owner/name or owner/name:FILE on Hugging Face, civitai:MODEL or
    civitai:MODEL@VERSION, or a page's address. Ctrl-C ends the waiting, not the download.
    """
    with Client(url) as client:
        if dry_run:
            plan = client.plan_pull(source, name=name, variant=variant, revision=revision)
            answer(as_json, plan, "\n".join(about(plan)))
            return
        begun = client.pull(source, name=name, variant=variant, revision=revision)
        told = -1

        def tell(now: Pull) -> None:
            nonlocal told
            if int(now.fraction * 20) > told:  # every 5 %
                told = int(now.fraction * 20)
                print_note(line(now))

        ended = client.wait_for_pull(begun, tell)
        answer(as_json, ended, line(ended))
        if ended.status is not JobStatus.SUCCEEDED:
            raise click.exceptions.Exit(Exit.FAILED)


@click.command()
@click.option("--stop", "stopped", metavar="ID", help="Cancel one, or take it off the list.")
@of_asking
@with_exit_code
def pulls(stopped: str | None, url: str | None, as_json: bool) -> None:
    """List the downloads to the server, the newest first. For owners."""
    with Client(url) as client:
        if stopped is not None:
            client.stop_pull(stopped)
        for each in client.pulls():
            answer(as_json, each, f"{each.id}  {line(each)}")


@click.command("delete-model")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default="models", show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--url", help="Of the server; default is DARKROOM_URL, or who was paired.")
@with_exit_code
def delete_model(name: str, kind: str, yes: bool, url: str | None) -> None:
    """Delete a model's files from the server's disk. For owners."""
    if not yes:
        click.confirm(f"Delete {kind}/{name} from the server's disk?", abort=True, err=True)
    with Client(url) as client:
        client.delete_model(name, kind)
        print_note(f"{kind}/{name} is deleted")
