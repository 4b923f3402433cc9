"""The application factory: the one place in web that names concrete classes."""

import secrets
from threading import Semaphore

from prometheus_client import disable_created_metrics

from darkroom.catalog.adapters import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import Settings, signing_key
from darkroom.jobs.census import Census
from darkroom.jobs.database import Database
from darkroom.jobs.files import Files
from darkroom.jobs.outbox import Outbox
from darkroom.jobs.preferences import Preferences
from darkroom.jobs.retention import Janitor, Retention
from darkroom.jobs.store import Store
from darkroom.jobs.tokens import Tokens
from darkroom.web import context, errors, journal
from darkroom.web.door import auth, headers, limits
from darkroom.web.door.proxies import Proxies
from darkroom.web.door.signatures import Signatures
from darkroom.web.parsing.decoders import Decoders
from darkroom.web.routes import (
    authority,
    catalog,
    client,
    generate,
    images,
    jobs,
    pairing,
    signed,
    system,
    timeline,
    tokens,
)
from darkroom.web.routes.compat import a1111
from darkroom.web.routes.compat.openai import images as openai_images
from darkroom.web.routes.compat.openai import models as openai_models
from darkroom.web.serving.streams import Streams
from darkroom.web.waiting import Application
from darkroom.web.webhooks import secret
from darkroom.web.webhooks.herald import Herald

RENDERINGS = 2  # thumbnails, other formats and timelines made at once
LEASE_MARGIN_S = 5.0  # on top of what an attempt to deliver a webhook may take


def create_app(settings: Settings) -> Application:
    """The web application. The database must be migrated."""
    app = Application("darkroom.web")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["MAX_CONTENT_LENGTH"] = settings.web.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.web.max_body_bytes
    app.url_map.strict_slashes = False

    disable_created_metrics()  # type: ignore[no-untyped-call]
    database = Database(settings.database_path, settings.queue.database_timeout_s)
    files = Files(settings.images_dir)
    store = Store(database, settings=settings.queue)
    orphans = Files(settings.orphans_dir)
    retention = Retention(database, files, orphans, settings.retention)
    Janitor(retention.sweep, settings.retention.every_s).start()
    streams = Streams(store, settings.web.heartbeat_s)
    meters = journal.WebMeters(lambda: streams.open)
    attempt_s = settings.webhooks.timeout_s + 2 * settings.queue.database_timeout_s
    herald = Herald(
        Outbox(database, secrets.token_hex(8), attempt_s + LEASE_MARGIN_S),
        settings.webhooks,
        lambda: signing_key(secret.find(settings)),
        meters.webhook_attempted,
    )
    here = context.Context(
        settings=settings,
        store=store,
        files=files,
        catalog=ModelCatalog(settings.models_dir, settings.models.default),
        adapters=AdapterCatalog(settings.loras_dir, settings.embeddings_dir),
        upscalers=UpscalerCatalog(settings.upscalers_dir),
        decoders=Decoders(
            settings.web.decoders,
            settings.web.decode_timeout_s,
            settings.web.decode_memory_bytes,
            settings.web.max_upload_pixels,
        ),
        rendering=Semaphore(RENDERINGS),
        streams=streams,
        census=Census(database, store.eta_errors),
        meters=meters,
        tokens=Tokens(database),
        guesses=limits.Guesses(settings.auth.failures_per_minute),
        preferences=Preferences(database),
        signatures=Signatures(settings.signing_key_path),
        herald=herald,
    )
    context.install(app, here)
    errors.install(app)
    journal.install(app, meters)
    headers.install(app, strict_transport=settings.tls.mode == "files")
    proxies = Proxies(settings.web.trusted_proxies)
    auth.install(app, auth.Door(here.tokens, here.guesses, settings.auth, proxies))
    limits.install(app, settings.auth.requests_per_minute)
    for module in (
        *(generate, jobs, timeline, images, signed, catalog),
        *(pairing, tokens, authority),
        *(client, system),
        *(openai_images, openai_models),
    ):
        app.register_blueprint(module.blueprint)
    for blueprint in a1111.blueprints:
        app.register_blueprint(blueprint)
    return app
