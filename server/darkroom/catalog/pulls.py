"""Downloads of models and what goes with them, from the hubs that the settings name."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from darkroom.catalog import civitai, downloads, hub
from darkroom.catalog.downloads import Download, Hubs, Judgement, PullError, Wanted
from darkroom.catalog.listing import EMBEDDED, SharedFolders
from darkroom.catalog.model_entry import NumberBytes
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.catalog.weight_files import UnusableError
from darkroom.errors import message


def look_up(wanted: Wanted, hubs: Hubs) -> Download:
    """Plan a download: asks the hub, writes nothing.

    Raises:
        PullError: it cannot be downloaded.
    """
    place = civitai.place(wanted.source, hubs.civitai_url)
    if place is not None:
        source = civitai.Civitai(hubs.civitai_url, hubs.civitai_token, hubs.data_dir)
        return civitai.look_up(source, place, wanted.name, wanted.variant, hubs.reserve)
    order = hub.order(wanted)
    if order is None or wanted.source.startswith(civitai.PREFIX):
        raise PullError(
            message(
                "pull_source",
                "{source} names no model on the hubs that this server asks; it looks like "
                "owner/name, owner/name:file, civitai:ID or the address of a model's page",
                source=downloads.without_secrets(wanted.source),
            )
        )
    found = hub.look_up(order, hubs.data_dir / "models", hubs.reserve)
    if (EMBEDDED / found.plan.name).exists():
        raise downloads.NameTakenError(
            message(
                "pull_included",
                "{name} is the name of a model that comes with the server; choose another",
                name=found.plan.name,
            )
        )
    return found


def judge(download: Download, hubs: Hubs, workers: Sequence[NumberBytes]) -> Judgement:
    """Judge a download by the headers of its files, which are fetched for it.

    Raises:
        PullError: it could not be used.
    """
    plan = download.plan
    with TemporaryDirectory(prefix="darkroom-plan-") as scratch:
        folder = Path(scratch) / plan.kind
        try:
            download.write_heads(folder)
        except downloads.HeadError:
            return Judgement()
        path = folder / plan.target.name
        if plan.kind != "models":
            try:
                civitai.check(path, plan.kind)
            except PullError as error:
                raise downloads.unusable(str(error)) from None
            return Judgement()
        try:
            hub.check(path)
        except UnusableError as error:
            raise downloads.unusable(str(error)) from None
        shared = SharedFolders((hubs.data_dir, *hubs.paths))
        catalog = ModelCatalog(folder, "", shared, hubs.quantize)
        try:
            entry = catalog.find(plan.name)
            memory = tuple(sum(entry.expected_parts(each).values()) for each in workers)
        except UnknownModelError:
            reasons = (each.reason for each in catalog.broken() if each.name == plan.name)
            return Judgement(lacks=next(reasons, None))
        except UnusableError:
            return Judgement()
        return Judgement(entry.info.family, None, memory)
