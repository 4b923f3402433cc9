"""The way in."""

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from darkroom_client import credentials, discovery, trust
from darkroom_client.asynchronous.aside import aside
from darkroom_client.asynchronous.job import AsyncJob
from darkroom_client.asynchronous.picture import AsyncPicture
from darkroom_client.asynchronous.transport import AsyncTransport
from darkroom_client.core import call, catalog, pulls, workers
from darkroom_client.core.catalog import (
    EmbeddingInfo,
    Health,
    LoraInfo,
    Model,
    Scheduler,
    UpscalerInfo,
)
from darkroom_client.core.errors import ServerError
from darkroom_client.core.pulls import Pull, PullPlan
from darkroom_client.core.records import JobPage, JobRecord, JobStatus
from darkroom_client.core.requests import Edit, Img2Img, Inpaint, Request, Txt2Img, Upscale
from darkroom_client.core.retries import RetryPolicy
from darkroom_client.core.signatures import takes_fields
from darkroom_client.core.workers import Worker
from darkroom_client.discovery import FoundServer
from darkroom_client.effects import AsyncEffects
from darkroom_client.notebook import bar

JOBS_PER_PAGE = 50
NOT_READY = "urn:darkroom:problem:not-ready"


class AsyncClient:
    """A Darkroom server. The calls of one client may overlap.

    Every method raises ConnectionFailedError when the server is not reached, and APIError when it
    refuses: InvalidRequestError, PermissionDeniedError, NotFoundError, RateLimitedError or
    ServerError.

    Args:
        base_url: of the server; None takes DARKROOM_URL of the environment, else the server that
            this user paired with last, else http://localhost:7860.
        token: of this device; None takes DARKROOM_TOKEN of the environment, else what `pair` got
            from this server, else none.
        timeout_s: longest silence of the server that is borne. Says nothing of jobs, which may
            take as long as they take.
        max_retries: after a broken connection or a 429 or 503, with pauses that grow or are what
            the server asks for. A retry never makes a second job.
        reattach_for_s: how long a followed job looks for a server that went away.
        progress: whether a notebook shows a bar while a job is followed; None takes
            DARKROOM_PROGRESS of the environment, 0 or 1, else yes. Elsewhere there is none.
        ca: a file (PEM) with the root certificate of a server that made its own; None takes
            DARKROOM_CA of the environment, else those that are trusted on this machine.
        http: sends the requests, for a proxy for example; stays the caller's to close. `ca` is
            nothing to it.
        effects: time and chance.

    Raises:
        ValueError: `base_url` is not an http or https address, DARKROOM_PROGRESS not 0 or 1, or
            there is no certificate in `ca`.
        CredentialsError: what `pair` has kept is needed and cannot be used.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        max_retries: int = 2,
        reattach_for_s: float = 60.0,
        progress: bool | None = None,
        ca: str | Path | None = None,
        http: httpx2.AsyncClient | None = None,
        effects: AsyncEffects | None = None,
    ) -> None:
        self.base_url, token = credentials.resolve(base_url, token)
        self._reattach_for_s = reattach_for_s
        self._progress = bar.wanted(progress)
        self._owns_http = http is None
        self._http = httpx2.AsyncClient(verify=trust.context(ca)) if http is None else http
        self._transport = AsyncTransport(
            self._http,
            self.base_url,
            token,
            timeout_s,
            RetryPolicy(max_retries),
            effects or AsyncEffects(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Jobs go on."""
        if self._owns_http:
            await self._http.aclose()

    @staticmethod
    async def discover(timeout_s: float = discovery.LISTEN_S) -> tuple[FoundServer, ...]:
        """Servers that announce themselves on the local network (multicast DNS).

        Any program on the network may claim to be one. No token is shown to a server unless it was
        paired with, or the token is given.

        Args:
            timeout_s: how long to listen; all of it, for there may always be one more.

        Raises:
            DiscoveryError: this machine cannot listen.
            ImportError: zeroconf is not installed; `pip install darkroom-client[discover]`.
        """
        return await aside(discovery.discover, timeout_s)

    async def pair(self, code: str, name: str | None = None) -> Path:
        """Turn a pairing code into this device's token, use it, and keep it for later clients.

        Args:
            code: as the server's terminal, or somebody who owns it, shows it. Good once.
            name: by which the owner knows this device; None takes this machine's.

        Returns:
            The file in which the token is kept, readable by this user alone.

        Raises:
            PermissionDeniedError: the code is wrong, used or old.
            CredentialsError: the token cannot be kept.
        """
        await aside(credentials.load)  # else the code would be used up before its token is lost
        asked = call.pair(code, name or socket.gethostname())
        token = (await self._transport.send(asked)).read(call.token)
        self._transport.authorize(token)
        return await aside(credentials.remember, self.base_url, token)

    # --- asking for pictures ---------------------------------------------------------------

    @takes_fields(Txt2Img)
    async def txt2img(self, request: Txt2Img) -> AsyncJob:
        """Develop a picture from words. Returns the queued job; see `Txt2Img` for the arguments."""
        return await self.submit(request)

    @takes_fields(Img2Img)
    async def img2img(self, request: Img2Img) -> AsyncJob:
        """Develop a picture from another one. Returns the queued job; see `Img2Img`."""
        return await self.submit(request)

    @takes_fields(Inpaint)
    async def inpaint(self, request: Inpaint) -> AsyncJob:
        """Repaint the white part of a mask. Returns the queued job; see `Inpaint`."""
        return await self.submit(request)

    @takes_fields(Edit)
    async def edit(self, request: Edit) -> AsyncJob:
        """Change pictures as the prompt says. Returns the queued job; see `Edit`."""
        return await self.submit(request)

    @takes_fields(Upscale)
    async def upscale(self, request: Upscale) -> AsyncJob:
        """Make a picture larger by a network. Returns the queued job; see `Upscale`."""
        return await self.submit(request)

    async def submit(self, request: Request) -> AsyncJob:
        """Put a request of any task in the queue."""
        sent = await aside(call.submit, request, self._transport.effects.new_key())
        return self._job((await self._transport.send(sent)).read(JobRecord.from_wire))

    # --- jobs and pictures -----------------------------------------------------------------

    async def job(self, job_id: str) -> AsyncJob:
        """One of my jobs."""
        return self._job(
            (await self._transport.send(call.show_job(job_id))).read(JobRecord.from_wire)
        )

    async def jobs(
        self, status: JobStatus | None = None, *, page_size: int = JOBS_PER_PAGE
    ) -> AsyncIterator[AsyncJob]:
        """My jobs, newest first. Asks for more of them as it is read.

        Args:
            status: only those.
            page_size: jobs to ask for at a time, 1 to 100.
        """
        cursor = None
        while True:
            asked = call.list_jobs(status, page_size, cursor)
            page = (await self._transport.send(asked)).read(JobPage.from_wire)
            for record in page.jobs:
                yield self._job(record)
            cursor = page.next_cursor
            if cursor is None:
                return

    def image(self, picture_id: str) -> AsyncPicture:
        """A picture by its id. Nothing is asked until its bytes are."""
        return AsyncPicture(picture_id, transport=self._transport)

    def _job(self, record: JobRecord) -> AsyncJob:
        return AsyncJob(self._transport, record, self._reattach_for_s, self._progress)

    # --- the server ------------------------------------------------------------------------

    async def models(self) -> tuple[Model, ...]:
        """What may be asked for as `model`."""
        return (await self._transport.send(call.list_models())).read(catalog.models)

    async def thumbnail(self, model: str) -> bytes:
        """A small picture, as WebP, that shows what a model draws.

        Raises:
            NotFoundError: there is no such model, or none with a picture (`Model.thumbnail_url`).
        """
        return (await self._transport.send(call.show_thumbnail(model))).body

    async def unload(self, model: str) -> None:
        """Take a model out of the server's memory; for owners. Its next job loads it again.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: jobs of it run now.
        """
        await self._transport.send(call.unload(model))

    async def lora_thumbnail(self, lora: str) -> bytes:
        """A small picture, as WebP, that shows what a LoRA does.

        Raises:
            NotFoundError: there is no such LoRA, or none with a picture (`LoraInfo.thumbnail_url`).
        """
        return (await self._transport.send(call.show_lora_thumbnail(lora))).body

    # --- the owner's models ----------------------------------------------------------------

    async def plan_pull(
        self,
        source: str,
        *,
        name: str | None = None,
        variant: str | None = None,
        revision: str | None = None,
    ) -> PullPlan:
        """What a download to the server would be, and whether it fits; see `pull`."""
        asked = call.pull(source, name, variant, revision, dry_run=True)
        return (await self._transport.send(asked)).read(PullPlan.from_wire)

    async def pull(
        self,
        source: str,
        *,
        name: str | None = None,
        variant: str | None = None,
        revision: str | None = None,
    ) -> Pull:
        """Let the server download a model, LoRA, embedding, upscaler or VAE; for owners.

        Returns when the download has begun; `wait_for_pull` waits for its end. One of the same
        name that has not ended is returned instead of a second one.

        Args:
            source: `owner/name` or `owner/name:file` on Hugging Face, `civitai:MODEL` or
                `civitai:MODEL@VERSION`, or the address of a page of one of them.
            name: on the server; None for its own.
            variant: of the weights, such as fp16; None for the smallest that loses nothing.
            revision: of a repository: branch, tag or commit; None for the main branch.

        Raises:
            InvalidRequestError: it cannot be downloaded; says why.
            ConflictError: there is a file of that name.
            ServerError: the hub does not answer, or the server's disk is full.
        """
        asked = call.pull(source, name, variant, revision, dry_run=False)
        return (await self._transport.send(asked)).read(Pull.from_wire)

    async def pulls(self) -> tuple[Pull, ...]:
        """The downloads to the server, the newest first; for owners."""
        return (await self._transport.send(call.list_pulls())).read(pulls.pulls)

    async def find_pull(self, pull_id: str) -> Pull:
        """How far a download is; for owners."""
        return (await self._transport.send(call.show_pull(pull_id))).read(Pull.from_wire)

    async def stop_pull(self, pull_id: str) -> Pull:
        """Cancel a download, or take one that has ended off the list; for owners.

        What has arrived of it is removed, unless it is complete.
        """
        return (await self._transport.send(call.stop_pull(pull_id))).read(Pull.from_wire)

    async def wait_for_pull(
        self, pull: Pull, on_progress: Callable[[Pull], object] = lambda _: None
    ) -> Pull:
        """Wait until a download has ended, well or not. `on_progress` is called every second."""
        while True:
            pull = await self.find_pull(pull.id)
            on_progress(pull)
            if pull.status.terminal:
                return pull
            await self._transport.effects.sleep(pulls.LOOK_S)

    async def delete_model(self, name: str, kind: str = "models") -> None:
        """Delete a model's files from the server's disk; for owners.

        Args:
            name: as in the list.
            kind: models, loras, embeddings or upscalers.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: jobs need it, it is the default model, it comes with the server, or it is
                in a folder of another program.
            ValueError: there is no such kind.
        """
        if kind not in pulls.KINDS:
            raise ValueError(f"there is no kind {kind!r}; there is {', '.join(pulls.KINDS)}")
        await self._transport.send(call.delete(kind, name))

    # --- what may be asked for -------------------------------------------------------------

    async def schedulers(self) -> tuple[Scheduler, ...]:
        """What may be asked for as `scheduler`."""
        return (await self._transport.send(call.list_schedulers())).read(catalog.schedulers)

    async def loras(self) -> tuple[LoraInfo, ...]:
        """What may be asked for in `loras`, each by its name as `Lora(name, scale)`."""
        return (await self._transport.send(call.list_loras())).read(catalog.loras)

    async def embeddings(self) -> tuple[EmbeddingInfo, ...]:
        """What may be written in a prompt beside words."""
        return (await self._transport.send(call.list_embeddings())).read(catalog.embeddings)

    async def upscalers(self) -> tuple[UpscalerInfo, ...]:
        """What may be asked for as `upscaler`."""
        return (await self._transport.send(call.list_upscalers())).read(catalog.upscalers)

    async def workers(self) -> tuple[Worker, ...]:
        """Who works on the queue; for owners."""
        return (await self._transport.send(call.list_workers())).read(workers.all_of)

    async def drain(self, worker: str) -> Worker:
        """Have a worker finish its jobs and claim no others; for owners.

        Raises:
            NotFoundError: there is no such worker.
        """
        return (await self._transport.send(call.drain(worker, True))).read(Worker.from_wire)

    async def resume(self, worker: str) -> Worker:
        """Have a worker that was told to drain claim jobs again; for owners.

        Raises:
            NotFoundError: there is no such worker.
        """
        return (await self._transport.send(call.drain(worker, False))).read(Worker.from_wire)

    async def health(self) -> Health:
        """What the server says of itself if it lives."""
        return (await self._transport.send(call.health())).read(Health.from_wire)

    async def ready(self) -> bool:
        """Whether a worker has its model loaded. Jobs are accepted without one, and wait."""
        try:
            await self._transport.send(call.ready())
        except ServerError as error:
            if error.type == NOT_READY:
                return False
            raise
        return True
