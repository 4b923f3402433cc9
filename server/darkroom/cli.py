"""The command line. Each command imports what it needs: `--help` must not load torch."""

import functools
import gc
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from pydantic import ValidationError

import darkroom
from darkroom import config
from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.ops import logs

if TYPE_CHECKING:
    from darkroom.engine.base import EngineMemory
    from darkroom.responses import Device
    from darkroom.storage.clients import Tokens
    from darkroom.storage.database import Database

PATH = click.Path(path_type=Path, readable=False)  # what reads it says more


def scope_option(default: str) -> Callable[[Any], Any]:
    """The option --scope; None if it is not given. `default` says what it is then."""
    return click.option(
        "--scope",
        type=click.Choice(["use", "own"]),
        help="use: make pictures and see your own. own: also see everyone's, and manage devices. "
        f"Default: {default}.",
    )


def command(
    group: click.Group,
    *parameters: Callable[[Any], Any],
    name: str | None = None,
    listens: bool = False,
    finds: bool = False,
) -> Callable[[Callable[..., None]], click.Command]:
    """Decorator: adds a command, which gets the settings and then its own parameters.

    A `DarkroomError` ends it with status 1 and the error's message.

    Args:
        group: that it is added to.
        parameters: its options and arguments, besides those of the settings.
        name: the function's name by default.
        listens: whether it listens, or asks or describes a server that does. Then its help shows
            the options of the address.
        finds: whether it is about a server that is there already, and looks for the one that runs.
    """
    common = (
        click.option(
            "--host",
            hidden=not listens,
            help="Address the server listens on; default 0.0.0.0, all.",
        ),
        click.option(
            "--port", type=int, hidden=not listens, help="Port of the server; default 7860."
        ),
        click.option("--data-dir", type=PATH, help="Data folder of the server; default: data."),
        click.option("--config", "config_file", type=PATH, help="YAML file."),
    )

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(
            config_file: Path | None,
            data_dir: Path | None,
            port: int | None,
            host: str | None,
            **given: Any,
        ) -> None:
            settings = load(config_file, data_dir=data_dir, port=port, host=host)
            try:
                if finds:
                    from darkroom.ops import running

                    settings = running.find(settings, named=is_named(data_dir))
                function(settings, **given)
            except (DarkroomError, PermissionError) as error:
                fail(str(error))

        decorated: Callable[..., None] = run
        for parameter in reversed((*parameters, *common)):
            decorated = parameter(decorated)
        return group.command(name)(decorated)

    return decorate


def is_named(data_dir: Path | None) -> bool:
    """Whether the caller says which data folder is meant, by the option or the environment."""
    return data_dir is not None or f"{config.PREFIX}DATA_DIR" in os.environ


@contextmanager
def imports() -> Iterator[None]:
    """Context for the imports of a long-lived process, without garbage collection.

    Importing creates many objects and drops few, so collecting finds nothing and takes a fifth of
    the worker's import time. Afterwards the objects are frozen, and not examined again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def fail(message: str) -> NoReturn:
    """Exit with status 1 and a message."""
    click.secho(f"darkroom: {message}", fg="red", err=True)
    sys.exit(1)


def load(config_file: Path | None, **overrides: Any) -> Settings:
    """Read the settings, or exit with what is wrong with them."""
    if config_file is not None:
        os.environ[config.CONFIG_VARIABLE] = str(config_file)
    try:
        return config.load(overrides)
    except ValidationError as error:
        found: dict[str, list[str]] = {}
        for item in error.errors():
            # A setting that may be of several kinds has an error of each, named after the kind.
            path = itertools.takewhile(_is_name, map(str, item["loc"]))
            found.setdefault(".".join(path), []).append(item["msg"].removeprefix("Value error, "))
        wrong = "; ".join(f"{name}: {', or '.join(texts)}" for name, texts in found.items())
        fail(f"the settings are not valid: {wrong}")
    except (OSError, ValueError) as error:
        fail(str(error))


def _is_name(part: str) -> bool:
    """Whether a part of an error's place is a setting or an index, and not a kind of value."""
    return part.replace("_", "").isalnum()


def prepare(settings: Settings) -> None:
    """Create the data folder and migrate its database, or exit with why that fails."""
    from darkroom.storage import data_folder, database

    try:
        data_folder.check(settings)
        database.migrate(database.place_of(settings))
    except OSError as error:
        fail(str(error))


def check_files(settings: Settings) -> None:
    """Exit if the place of pictures refuses this server. If it is away, the server waits for it."""
    from darkroom.storage.files import FilesUnavailableError, check_place

    if settings.storage.files_url is None:
        return
    try:
        check_place(settings)
    except FilesUnavailableError as error:
        if error.advice:
            fail(f"storage.files_url: {error}; {error.advice}")
        click.secho(f"darkroom: storage.files_url: {error}", fg="yellow", err=True)
    except (ImportError, ValueError, TypeError) as error:
        fail(f"storage.files_url, storage.files_options: {error}")


def check_default_model(settings: Settings) -> None:
    """Exit if the default model is not there or not usable: the worker could not start."""
    from darkroom.catalog.models import BrokenModelError, ModelCatalog, UnknownModelError

    try:
        ModelCatalog.of(settings).find(None)
    except (BrokenModelError, UnknownModelError) as error:
        fail(f"models.default: {error}")


@contextmanager
def startup_notice(settings: Settings) -> Iterator[None]:
    """Context that prints and announces the server's address; exits if the port is taken."""
    from darkroom.ops import startup_notice
    from darkroom.ops.supervisor import CannotListenError, check_port
    from darkroom.storage import data_folder

    try:
        check_port(settings.host, settings.port)  # else the notice would be about another server
    except CannotListenError as error:
        fail(f"{error}; {error.advice}")
    for detail, advice in data_folder.concerns(settings):
        click.secho(f"darkroom: {detail}: {advice}", fg="yellow", err=True)
    for name in config.unknown_variables():
        click.secho(f"darkroom: the variable {name} is no setting; it is ignored", err=True)
    with startup_notice.startup_notice(settings, logs.print_line):
        yield


@contextmanager
def database_of(settings: Settings) -> "Iterator[Database]":
    """The database, which is migrated if need be."""
    from darkroom.storage import database

    prepare(settings)
    with closing(database.Database(database.place_of(settings))) as opened:
        yield opened


@contextmanager
def tokens_of(settings: Settings) -> "Iterator[Tokens]":
    """The tokens in the database."""
    from darkroom.storage.clients import Tokens

    with database_of(settings) as opened:
        yield Tokens(opened)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(darkroom.__version__)
def main() -> None:
    """Image generation server for the local network."""


@main.group()
def token() -> None:
    """Manage the tokens of devices and programs."""


@main.group()
def webhooks() -> None:
    """Manage webhooks."""


@main.group()
def storage() -> None:
    """Manage where records and pictures are."""


@main.group()
def models() -> None:
    """Manage models."""


@command(main, listens=True)
def serve(settings: Settings) -> None:
    """Start the server: web and worker, each restarted if it dies."""
    from darkroom.ops import supervisor

    logs.configure(settings.log_format, "serve")
    with supervisor.early_worker(settings) as worker:
        from darkroom.api.auth import tls
        from darkroom.storage import database

        prepare(settings)
        check_files(settings)
        tls.certificate(settings)  # ends at once if something is wrong with it
        check_default_model(settings)
        with database.exclusively(settings.data_dir / "serve.lock") as alone:
            if not alone:
                fail(f"a server already runs on {settings.data_dir}; stop it or choose --data-dir")
            with startup_notice(settings):
                supervisor.supervise(settings, worker)


# `serve` prints the notice itself.
@command(main, click.option("--notice/--no-notice", default=True, hidden=True), listens=True)
def web(settings: Settings, notice: bool) -> None:
    """Start the web process alone."""
    with imports():
        from darkroom.api.auth import tls
        from darkroom.asgi import server
        from darkroom.ops import running
        from darkroom.storage import database, reconcile

    logs.configure(settings.log_format, "web")
    prepare(settings)
    if notice:
        check_files(settings)
    certificate = tls.certificate(settings)
    with database.exclusively(settings.data_dir / "web.lock") as alone:
        if alone:  # else another web process may be writing uploads now
            reconcile.at_web_start(settings)
        with (
            startup_notice(settings) if notice else nullcontext(),
            running.announced(settings) if alone else nullcontext(),
        ):
            server.run(settings, certificate)


def import_worker() -> Callable[[Settings], None]:
    """Import the worker and the engine's libraries, which takes seconds. Returns what runs it."""
    with imports():
        from darkroom.engine import unneeded

        unneeded.leave_out()
        from darkroom.ops import worker_process
    return worker_process.run


# `serve` checks the data folder itself meanwhile, and counts the workers that it starts.
@command(
    main,
    click.option("--imports-first", is_flag=True, hidden=True),
    click.option("--number", type=int, default=0, hidden=True),
)
def worker(settings: Settings, imports_first: bool, number: int) -> None:
    """Start one worker process alone."""
    settings = settings.of_worker(number)
    logs.configure(settings.log_format, "worker")
    if imports_first:
        import_worker()
    from darkroom.storage import database

    prepare(settings)
    if not imports_first:
        check_files(settings)
    # The lock proves that no other process has this worker's name, so jobs that are still leased to
    # the name belonged to a dead process and can be taken back at once. It is taken before the
    # seconds that the engine's libraries take to load.
    with database.exclusively(settings.worker_lock_path) as alone:
        if not alone:
            fail(
                f"a worker called {settings.worker_name} already works on {settings.data_dir}; "
                "stop it, choose --data-dir, or give this one a name: DARKROOM_WORKER__NAME"
            )
        run = import_worker()
        try:
            run(settings)
        except (OSError, ValueError) as error:
            fail(str(error))


@command(
    main,
    scope_option("use, or what the device had last"),
    click.option("--device", help="Name or id of a device that gets another token."),
    listens=True,
    finds=True,
)
def pair(settings: Settings, scope: str | None, device: str | None) -> None:
    """Create a code to pair one device, and show it as a QR code.

    It makes a new device, or lets the one named by --device in again: a phone that lost its cookie
    or has the app on its home screen, which find their pictures then.
    """
    from darkroom.ops.startup_notice import invite
    from darkroom.requests import Scope

    with tokens_of(settings) as tokens:
        known = None if device is None else find_device(tokens, device)
        granted = Scope(scope) if scope else known.scope if known else Scope.USE
        with_qr = sys.stdout.isatty()
        invite(settings, tokens, granted, logs.print_line, with_qr=with_qr, device=known)


token.add_command(pair)  # where people look for it, too


def find_device(tokens: "Tokens", id_or_name: str) -> "Device":
    """The device of an id or name, or exit with the names there are."""
    devices = tokens.devices()
    for device in devices:
        if device.id == id_or_name or device.name.casefold() == id_or_name.casefold():
            return device
    names = ", ".join(device.name for device in devices) or "none yet"
    fail(f"there is no device {id_or_name!r}; there is {names}")


@command(token, click.argument("name"), scope_option("use"), name="create", finds=True)
def create_token(settings: Settings, name: str, scope: str | None) -> None:
    """Create a token for a device or program called NAME, and print it. It is shown only once."""
    from darkroom.requests import Scope, TokenRequest

    try:
        asked = TokenRequest(name=name, scope=Scope(scope or Scope.USE))
    except ValidationError as error:
        fail(f"the name cannot be used: {error.errors()[0]['msg']}")
    with tokens_of(settings) as tokens:
        created, secret = tokens.create(asked.name, asked.scope)
    if created.name != name:
        click.echo(f"another device is called {name}; this one is {created.name}", err=True)
    click.echo(secret)


@command(token, name="list", finds=True)
def list_tokens(settings: Settings) -> None:
    """List the devices, and their valid tokens."""
    with tokens_of(settings) as tokens:
        devices = tokens.devices()
    for device in devices:
        if not device.tokens:
            click.echo(f"{'revoked':12}       {device.jobs} jobs are kept  {device.name}")
        for found in device.tokens:
            used = f"used {found.used_at:%Y-%m-%d %H:%M}" if found.used_at else "never used"
            since = f"{found.created_at:%Y-%m-%d %H:%M}"
            click.echo(f"{found.id}  {found.scope:3}  since {since}, {used} UTC  {found.name}")


@command(token, click.argument("id_or_name"), name="revoke", finds=True)
def revoke_token(settings: Settings, id_or_name: str) -> None:
    """Revoke a token by its id, or all tokens of a device by its name. Its pictures are kept."""
    with tokens_of(settings) as tokens:
        good = tokens.good()
        found = [one for one in good if one.id == id_or_name] or [
            one for one in good if one.name.casefold() == id_or_name.casefold()
        ]
        if not found:
            fail(f"there is no token {id_or_name!r}; `darkroom token list` shows them")
        for one in found:
            tokens.revoke(one.id)
    for one in found:
        click.echo(f"revoked {one.id}  {one.name}")


@command(webhooks, name="secret")
def show_webhook_secret(settings: Settings) -> None:
    """Print the secret with which receivers verify webhooks."""
    from darkroom.storage.shared_keys import agreement
    from darkroom.webhooks import signing

    with database_of(settings) as opened:
        click.echo(signing.find(settings, agreement(settings, opened)))


@command(models, name="list")
def list_models(settings: Settings) -> None:
    """List the models, and what each can do."""
    from darkroom.catalog.listing import SharedFolders
    from darkroom.catalog.models import ModelCatalog
    from darkroom.ops import doctor

    catalog = ModelCatalog.of(settings, lambda: doctor.has_gpu(settings))
    for entry in catalog.entries():
        info = entry.info
        star = "*" if info.default else " "
        size = f"{info.defaults.width}×{info.defaults.height}"
        tasks = ", ".join(info.tasks)
        click.echo(f"{star} {info.name}  {info.family}  {size}  {tasks}  {info.description}")
        for reason in entry.passed_over:
            click.secho(f"    {reason}", fg="yellow")
    for broken in catalog.broken():
        click.secho(f"! {broken.name}  cannot be used: {broken.reason}", fg="yellow")
    for path in SharedFolders(settings.models.paths).missing():
        click.secho(f"! {path}  of models.paths is not there, or cannot be read", fg="yellow")


@command(
    models,
    click.argument("repository"),
    click.option("--file", help="A single-file checkpoint in it; same as REPOSITORY:FILE."),
    click.option("--revision", help="Branch, tag or commit; default is the main branch."),
    click.option("--name", help="Name of the model here; default is its own name."),
    click.option(
        "--variant", help="Of the weights, such as fp16 or plain; default is the smallest."
    ),
    name="pull",
)
def pull_model(settings: Settings, repository: str, file: str | None, **given: str | None) -> None:
    """Download a model from Hugging Face or Civitai.

    REPOSITORY is owner/name or owner/name:FILE on Hugging Face; or civitai:MODEL,
    civitai:MODEL@VERSION, or a page's address on Civitai, where LoRAs, embeddings, upscalers and
    VAEs are downloaded too. After an interruption run it again: it continues where it stopped.
    """
    from darkroom.catalog import downloads, pulls
    from darkroom.catalog.downloads import GIB

    source = f"{repository}:{file}" if file else repository
    hubs = downloads.Hubs.of(settings)
    download = pulls.look_up(downloads.Wanted(source, **given), hubs)
    plan = download.plan
    workers = workers_memory(settings)
    judged = pulls.judge(download, hubs, [each.number_bytes for each in workers])
    free = downloads.free_bytes(settings.data_dir) / GIB
    click.echo(f"{plan.title}: {plan.total_bytes / GIB:.2f} GiB; the disk has {free:.2f} GiB free")
    for needed, worker in zip(judged.memory_bytes, workers, strict=False):
        fits = "fits" if needed <= worker.budget_bytes else "is slower, because it does not fit"
        budget = f"{worker.budget_bytes / GIB:.2f} GiB"
        click.echo(f"in memory it takes {needed / GIB:.2f} of {budget}: it {fits}")
    if judged.lacks is not None:
        click.secho(f"it cannot draw yet: {judged.lacks}", fg="yellow")
    arrived = download.fetch(click.echo)
    click.echo(f"{plan.name} is in {arrived}")


def workers_memory(settings: Settings) -> "list[EngineMemory]":
    """The memory of the workers that run now; none if the database cannot say."""
    from darkroom.queue.store import Store
    from darkroom.storage.database import Database, DatabaseUnavailableError, place_of

    place = place_of(settings)
    if isinstance(place, Path) and not place.exists():
        return []
    with closing(Database(place)) as database:
        try:
            return Store(database).memory()
        except DatabaseUnavailableError:
            return []


@command(models, click.argument("name"), name="check")
def check_model(settings: Settings, name: str) -> None:
    """Load a model and make one picture with it, and say how long that takes.

    It runs beside a server that may run, and needs memory of its own.
    """
    from darkroom.ops import doctor

    logs.configure(settings.log_format, "check")
    found = doctor.check_model(settings, name)
    if not found.ok:
        fail(f"{name} cannot draw: {found.detail}")
    click.echo(f"{name} draws: {found.detail}")


@command(main, click.argument("name"))
def unload(settings: Settings, name: str) -> None:
    """Take a model out of the worker's memory, for another program that needs it.

    NAME is the model's name, or upscalers/NAME. The next job of the model loads it again.
    """
    from darkroom.catalog.models import ModelCatalog
    from darkroom.catalog.upscalers import UpscalerCatalog
    from darkroom.queue.doorbell import doorbells
    from darkroom.queue.unloads import ModelInUseError, Unloads
    from darkroom.requests import UPSCALERS

    if name.startswith(UPSCALERS):
        UpscalerCatalog.of(settings).find(name.removeprefix(UPSCALERS))
    else:
        ModelCatalog.of(settings).find(name)
    try:
        with database_of(settings) as opened:
            Unloads(opened).ask(name)
    except ModelInUseError:
        fail(f"jobs of {name} run now; wait for them, or cancel them first")
    bells = doorbells(settings)
    bells.ring("worker")
    bells.close()
    click.echo(f"{name} leaves memory")


@command(main, click.argument("target", type=PATH))
def backup(settings: Settings, target: Path) -> None:
    """Copy the database and all pictures to TARGET, also while the server runs.

    TARGET is a complete data folder: `darkroom serve --data-dir TARGET` starts from it.
    """
    from darkroom.storage.backup import backup

    logs.configure(settings.log_format, "backup")
    copied = backup(settings, target.expanduser().absolute())
    click.echo(f"{copied.jobs} jobs and {copied.pictures} pictures are in {target}")
    if copied.missing:
        click.secho(f"! the files of {copied.missing} pictures were not there", fg="yellow")


@command(
    storage,
    click.option("--to", "database_url", help="PostgreSQL's URL, or sqlite for a file."),
    click.option("--files", "files_url", help="A URL such as s3://BUCKET/PREFIX, or folder."),
    click.option("--files-options", help="storage.files_options of the new place, as JSON."),
)
def move(
    settings: Settings,
    database_url: str | None,
    files_url: str | None,
    files_options: str | None,
) -> None:
    """Copy records and pictures of a stopped server to other places, and check them.

    What is not named stays where it is. Nothing is deleted. A move that was interrupted goes on
    when it is started again.
    """
    from darkroom.storage.move import advice, move

    storage: dict[str, Any] = settings.storage.model_dump()
    if database_url is not None:
        storage["database_url"] = None if database_url == "sqlite" else database_url
    if files_url is not None:
        storage["files_url"] = None if files_url == "folder" else files_url
    try:
        if files_options is not None:
            storage["files_options"] = json.loads(files_options)
        chosen = config.StorageSettings.model_validate(storage)
    except ValidationError as error:
        fail("; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors()))
    except ValueError as error:
        fail(f"--files-options is no JSON: {error}")
    if database_url is files_url is None:
        fail("say where to: --to, --files, or both")
    logs.configure(settings.log_format, "move")
    target = settings.model_copy(update={"storage": chosen})
    try:
        moved = move(settings, target)
    except OSError as error:
        fail(f"not everything could be moved: {error}; start the command again")
    click.echo(f"{moved.jobs} jobs and {moved.files} files are in the new place, and checked")
    if moved.missing:
        click.secho(f"! the files of {moved.missing} pictures were not there", fg="yellow")
    click.echo(f"write this in config.yaml, with the password of the database:\n{advice(target)}")


@command(
    main,
    click.argument("process", type=click.Choice(["web", "worker"]), default="web"),
    listens=True,
)
def health(settings: Settings, process: str) -> None:
    """Check whether web, or the worker, is healthy; the exit status is 0 if so.

    For the health checks of container engines and service managers.
    """
    from darkroom.ops.watchdog import web_is_well, worker_is_well

    well = web_is_well(settings) if process == "web" else worker_is_well(settings)
    click.echo(f"{process} is {'well' if well else 'not well'}")
    sys.exit(0 if well else 1)


@command(main, listens=True)
def doctor(settings: Settings) -> None:
    """Check whether the server can work, and say what to do if not.

    It checks the server that runs, or without one whether one could start with these settings.
    """
    from darkroom.ops import running
    from darkroom.ops.doctor import examine

    logs.configure(settings.log_format, "doctor")
    named = is_named(click.get_current_context().params["data_dir"])
    with suppress(running.NoServerError, PermissionError):  # a check says the latter
        settings = running.find(settings, named=named)
    well = True
    for finding in examine(settings):
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark} {finding.name:9} {finding.detail}")
        if not finding.ok:
            well = False
            click.echo(f"               {finding.advice}")
    sys.exit(0 if well else 1)
