"""`darkroom fleet` and `darkroom join`: several boxes with one queue (docs/scale-out.md)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from darkroom.cli import command, database_of, fail, main
from darkroom.config import Settings
from darkroom.ops import logs

if TYPE_CHECKING:
    from darkroom.storage.boxes import Boxes
    from darkroom.storage.database import Database


@main.group()
def fleet() -> None:
    """Manage the boxes that share this one's queue."""


@contextmanager
def opened(settings: Settings) -> "Iterator[Database]":
    """The database that boxes share, migrated if need be; exits if it is of one box alone."""
    from darkroom.ops.fleet import handover

    handover.check(settings)
    with database_of(settings) as found:
        yield found


@contextmanager
def boxes_of(settings: Settings) -> "Iterator[Boxes]":
    """The boxes that have joined."""
    with opened(settings) as database:
        from darkroom.storage.boxes import Boxes  # needs psycopg

        yield Boxes(database)


@command(fleet, finds=True)
def code(settings: Settings) -> None:
    """Make a code with which one box joins, once, within ten minutes."""
    import hashlib
    import ssl

    from darkroom.api.auth import tls
    from darkroom.ops import discovery
    from darkroom.ops.fleet import code as codes
    from darkroom.ops.fleet.handover import is_of_this_machine
    from darkroom.storage.clients import Tokens

    with opened(settings) as database:
        served = tls.certificate(settings)
        if served is None:
            fail(
                "a box that joins gets the database's password, so it joins over TLS alone: set "
                "tls.mode to local_ca, and restart (docs/security.md)"
            )
        local = settings.tls.mode == "local_ca"
        path = tls.authority(settings).root if local else served.certificate
        certificate = path.read_text()
        first = certificate[: certificate.index("-----END CERTIFICATE-----")]
        der = ssl.PEM_cert_to_DER_cert(f"{first}-----END CERTIFICATE-----\n")
        secret, expires_at = Tokens(database).new_join_code(settings.fleet.code_s)
    shown = codes.write(secret, codes.fingerprint(hashlib.sha256(der).digest()))
    if is_of_this_machine(settings.fleet.address):
        click.secho(
            "fleet.address is of this machine alone, so Ray reaches no other: set it to the "
            "address that the boxes share, such as one of a VPN",
            fg="yellow",
            err=True,
        )
    minutes = (expires_at - time.time()) / 60
    click.echo(f"On the other box, once and within {minutes:.0f} minutes:", err=True)
    click.echo(f"darkroom join {discovery.urls(settings)[0]} {shown}")


@command(fleet, finds=True)
def start(settings: Settings) -> None:
    """Run Ray's head, which starts the workers on the boxes that have joined.

    It runs on the first box, beside `darkroom serve`.
    """
    from darkroom.ops.fleet import service

    logs.configure(settings.log_format, "fleet")
    service.run_head(settings)


# `start` runs it.
@command(fleet, name="manage")
def manage(settings: Settings) -> None:
    """Start and stop workers by what the queue needs."""
    from darkroom.ops.fleet import manager

    logs.configure(settings.log_format, "manager")
    manager.run(settings)


manage.hidden = True


@command(fleet, name="list", finds=True)
def list_boxes(settings: Settings) -> None:
    """List the boxes that have joined, their workers, and the models that each lacks."""
    from darkroom.catalog.models import ModelCatalog
    from darkroom.queue.presence import Workers

    with opened(settings) as database:
        from darkroom.storage.boxes import Boxes  # needs psycopg

        boxes, workers = Boxes(database).all(), Workers(database).all()
    ours = {entry.info.name for entry in ModelCatalog.of(settings).entries()}
    for box in boxes:
        joined = time.strftime("%Y-%m-%d %H:%M", time.gmtime(box.joined_at))
        click.echo(f"{box.name}  joined {joined} UTC")
        for worker in workers:
            if worker.name.rpartition("-")[0] != box.name:
                continue
            state = "ready" if worker.ready else "starting" if worker.alive else "away"
            draining = ", draining" if worker.draining else ""
            click.echo(f"    {worker.name}  {worker.device}  {state}{draining}")
            if lacking := sorted(ours - set(worker.models)):
                click.secho(f"        lacks {', '.join(lacking)}", fg="yellow")


@command(
    fleet,
    click.argument("name"),
    click.option("--resume", is_flag=True, help="Let it have jobs again."),
    finds=True,
)
def drain(settings: Settings, name: str, resume: bool) -> None:
    """Have a box finish the jobs that it has, and get no others."""
    from darkroom.queue.presence import Workers

    with opened(settings) as database:
        workers = Workers(database)
        found = [each.name for each in workers.all() if each.name.rpartition("-")[0] == name]
        if not found:
            fail(f"no worker of a box {name!r} is known; `darkroom fleet list` shows them")
        for worker in found:
            workers.drain(worker, not resume)
    click.echo(f"{', '.join(found)}: {'gets jobs again' if resume else 'gets no more jobs'}")


@command(fleet, click.argument("name"), finds=True)
def remove(settings: Settings, name: str) -> None:
    """Remove a box: its role in the database, its key, and Ray's token."""
    from darkroom.ops.fleet import handover

    with boxes_of(settings) as boxes:
        if not boxes.remove(name):
            fail(f"there is no box {name!r}; `darkroom fleet list` shows them")
    handover.new_ray_token(settings)
    click.echo(f"removed {name}")
    if not settings.fleet.files_environment:
        click.echo(
            "It knows this machine's key to storage.files_url: if you do not trust it any more, "
            "change that key; the other boxes ask for the new one by themselves",
            err=True,
        )


@command(
    main,
    click.argument("url", required=False),
    click.argument("code", required=False),
    click.option("--name", help="Name of this box; default: its host's name."),
    click.option("--address", help="Of this box, for Ray; default: that by which it joins."),
    click.option("--copy-models", is_flag=True, help="Copy the models that this box lacks."),
    click.option("--start/--no-start", default=True, help="Start the worker, or join alone."),
)
def join(
    settings: Settings,
    url: str | None,
    code: str | None,
    name: str | None,
    address: str | None,
    copy_models: bool,
    start: bool,
) -> None:
    """Join the queue of the server at URL with a CODE of `darkroom fleet code`, and work for it.

    Later starts need neither URL nor CODE.
    """
    from darkroom.ops.fleet import joining, membership

    logs.configure(settings.log_format, "join")
    if url is not None and code is not None:
        joined = joining.join(settings, url, code, name, address)
        click.echo(f"this box has joined as {joined.handover.name}", err=True)
    elif url is not None:
        fail("give URL and CODE as `darkroom fleet code` printed them")
    else:
        joined = membership.read(settings)
    if copy_models:
        joining.copy_models(settings, joined, lambda line: click.echo(line, err=True))
    if url is not None or copy_models:
        for lacking in joining.lacking(settings, joined):
            click.secho(f"this box lacks the model {lacking}", fg="yellow", err=True)
    if start:
        from darkroom.ops.fleet import service

        service.run_box(settings, joined)
