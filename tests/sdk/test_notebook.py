"""What a notebook shows, in a real kernel."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from darkroom_client import Client, JobStatus
from darkroom_client.core.events import PreviewEvent, ProgressEvent, QueuedEvent
from darkroom_client.core.records import JobRecord, Progress
from darkroom_client.notebook import page
from darkroom_client.notebook.look import Look, Shown
from tests.sdk.notebooks import Notebook, kernel
from tests.sdk.scripted import ScriptedServer, json_reply, problem
from tests.sdk.test_jobs import FAILED, QUEUED, event, stream
from tests.serving import RunningServer

SETUP = """
from darkroom_client import AsyncClient, Client
client = Client()
"""


@pytest.fixture(scope="module")
def notebook(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with kernel(tmp_path_factory.mktemp("kernel"), DARKROOM_URL=server.url) as opened:
        opened.run(SETUP)
        yield opened


def test_a_bar_develops_in_place_and_ends_as_a_line(notebook: Notebook) -> None:
    ran = notebook.run("job = client.txt2img('a red fox', num_inference_steps=8, seed=7).wait()")

    assert ran.displays == 1
    first, *middle, last = ran.drawn
    assert re.search(r'<progress (value="0" max="8" )?style="width:20em"', first)
    assert any(re.search(r'<progress value="[1-8]" max="8"', drawn) for drawn in middle)
    assert any('<img src="data:image/' in drawn for drawn in middle)
    assert re.search(r"<span>1 picture in \d+\.\d s</span>", last)
    assert "<progress" not in last
    assert "<img" not in last  # the job shows that itself
    (output,) = ran.outputs
    assert output["text/html"] == last
    assert re.fullmatch(r"a red fox: 1 picture in \d+\.\d s", output["text/plain"])


def test_iterating_shows_it_too(notebook: Notebook) -> None:
    ran = notebook.run("""
for event in client.txt2img("a cat", num_inference_steps=2):
    if event.terminal:
        print(event.type)
""")
    assert ran.displays == 1
    bar, printed = ran.outputs
    assert "1 picture in" in bar["text/html"]
    assert printed["text/plain"] == "succeeded\n"


def test_a_job_stands_there_with_its_pictures(notebook: Notebook) -> None:
    notebook.run("job = client.txt2img('two foxes', num_inference_steps=2, num_images=2).wait()")
    (output,) = notebook.run("job").outputs
    assert output["text/html"].count('<img src="data:image/webp;base64,') == 2
    assert "2 pictures in" in output["text/html"]
    assert output["text/plain"].startswith("<Job ")

    notebook.run("job.images[0].delete()")
    (output,) = notebook.run("job").outputs
    assert output["text/html"].count("<img") == 1


def test_awaiting_shows_a_bar_and_words(notebook: Notebook) -> None:
    ran = notebook.run("""
import asyncio
async with AsyncClient() as waiting:
    jobs = [await waiting.txt2img(f"fox {n}", num_inference_steps=2) for n in range(2)]
    await asyncio.gather(*(job.wait() for job in jobs))
jobs[0]
""")
    assert ran.displays == 2
    *bars, job = ran.outputs
    assert all("1 picture in" in bar["text/html"] for bar in bars)
    assert "1 picture in" in job["text/html"]


@pytest.mark.parametrize(
    "code",
    [
        "client.txt2img('a fox', num_inference_steps=2).wait(progress=False)",
        "Client(progress=False).txt2img('a fox', num_inference_steps=2).wait()",
        "list(client.txt2img('a fox', num_inference_steps=2).events(progress=False))",
        "client.txt2img('a fox', num_inference_steps=2).wait(progress=False).wait()",
        "import os; os.environ['DARKROOM_PROGRESS'] = '0'\n"
        "Client().txt2img('a fox', num_inference_steps=2).wait()",
    ],
)
def test_it_is_off_where_nobody_wants_it(notebook: Notebook, code: str) -> None:
    assert notebook.run(f"{code};").drawn == []
    notebook.run("import os; os.environ.pop('DARKROOM_PROGRESS', None)")


def test_the_environment_says_0_or_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_PROGRESS", "off")
    with pytest.raises(ValueError, match="DARKROOM_PROGRESS is 0 or 1, not 'off'"):
        Client()
    Client(progress=True).close()


def test_who_stops_waiting_is_told_that_the_job_goes_on(
    notebook: Notebook, idle_server: RunningServer
) -> None:
    ran = notebook.run(f"""
from darkroom_client import WaitTimeoutError
job = Client("{idle_server.url}").txt2img("a fox")
try:
    job.wait(0.3)
except WaitTimeoutError:
    job.cancel()
""")
    assert "no longer watched, the job goes on" in ran.drawn[-1]
    assert "<progress" not in ran.drawn[-1]
    (output,) = notebook.run("job").outputs
    assert "<span>cancelled</span>" in output["text/html"]


def test_a_long_story_told_at_once_is_not_drawn_event_by_event(
    notebook: Notebook, scripted: Callable[..., ScriptedServer]
) -> None:
    steps = [event(n, "progress", f', "step": {n}, "steps": 500, "eta_seconds": 9')
             for n in range(1, 500)]  # fmt: skip
    told = stream(*steps, event(500, "failed", ', "problem": {"title": "No", "status": 500}'))
    server = scripted(json_reply(QUEUED), told, json_reply(FAILED))

    ran = notebook.run(f"list(Client('{server.url}').job('abc'));")

    assert 5 < len(ran.drawn) < 50
    assert "failed: Out of memory: too large" in ran.drawn[-1]


def test_what_others_wrote_is_text_and_nothing_else() -> None:
    evil = '"><script>alert(1)</script>'
    record = JobRecord.from_wire({
        **FAILED,
        "request": {"prompt": evil},
        "notes": [evil],
        "error": {"type": "x", "title": evil, "status": 500, "detail": evil},
    })  # fmt: skip
    queued = Look.of(JobRecord.from_wire({**QUEUED, "request": {"prompt": evil + "\x1b[2J"}}))
    preview = queued.after(PreviewEvent(1, "abc", f"image/svg+xml{evil}", b"<svg/>"))

    for look in (Look.of(record), Look.of(record, (Shown("image/png", b""),)), preview):
        assert "<script" not in page.html(look)
        assert "\x1b" not in page.line(look)
    assert "<img" not in page.html(preview)


def test_a_job_that_is_begun_again_forgets_what_it_had_made() -> None:
    look = Look.of(JobRecord.from_wire(QUEUED))
    assert (look.doing, look.busy, look.progress) == ("waiting, next in turn", True, None)
    look = look.after(ProgressEvent(1, "abc", Progress(3, 4), 61.0))
    look = look.after(PreviewEvent(2, "abc", "image/webp", b"RIFF"))
    assert (look.doing, look.left, len(look.pictures)) == ("step 3 of 4", "61 s left", 1)
    look = look.after(QueuedEvent(3, "abc", 2, None))
    assert (look.doing, look.progress, look.pictures) == ("waiting, 2 ahead", None, ())


def test_a_server_that_is_gone_costs_the_pictures_and_not_the_words(
    server: RunningServer, scripted: Callable[..., ScriptedServer]
) -> None:
    with Client(server.url) as client:
        wire = server.finished(client.txt2img("a fox", num_inference_steps=2).id)
    gone = scripted(json_reply(wire), json_reply({}, 404))
    with Client(gone.url, max_retries=0) as client:
        shown = client.job(wire["id"])._repr_html_()
    assert wire["status"] == JobStatus.SUCCEEDED
    assert "1 picture in" in shown
    assert "<img" not in shown


def test_a_program_that_is_no_notebook_has_nothing_of_one(server: RunningServer) -> None:
    code = """
import sys
from darkroom_client import Client
with Client() as client:
    print(client.txt2img("a fox", num_inference_steps=2).wait().status)
assert "IPython" not in sys.modules
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "DARKROOM_URL": server.url},
        check=True,
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("succeeded\n", "")


def test_an_interrupted_cell_says_that_the_job_goes_on(
    notebook: Notebook, scripted: Callable[..., ScriptedServer]
) -> None:
    server = scripted(json_reply(QUEUED, 202), problem(503))
    ran = notebook.run(f"""
import signal
from darkroom_client import Effects
while_waiting = Effects(sleep=lambda _: signal.raise_signal(signal.SIGINT))
try:
    Client("{server.url}", effects=while_waiting).txt2img("a fox").wait()
except KeyboardInterrupt:
    print("interrupted")
""")
    assert "no longer watched, the job goes on" in ran.drawn[-1]
    assert ran.outputs[-1]["text/plain"] == "interrupted\n"
    assert [asked.method for asked in server.received if asked.method != "GET"] == ["POST"]
