"""The command `darkroom-client`, run as people and scripts run it."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from darkroom_client import Client, JobStatus
from darkroom_client.terminal import batch
from tests.sdk.scripted import ScriptedServer, problem
from tests.security.doors import new_code
from tests.serving import RunningServer, free_port

COMMAND = (sys.executable, "-m", "darkroom_client")
FAST = ("--steps", "2", "--seed", "7")
DEADLINE_S = 120  # the machine may be busy


def run(
    *arguments: str, folder: Path, given: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=DEADLINE_S,
        env={**os.environ, **environment},
        check=False,
    )


def made(result: subprocess.CompletedProcess[bytes]) -> list[str]:
    """The lines that a command which went well has printed."""
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode().splitlines()


def on_a_terminal(*arguments: str, folder: Path, **environment: str) -> str:
    """What a person sees of a command that ends well."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:
            pass  # Linux says so when the last one has left the terminal
        os.close(ours)
        assert process.wait(DEADLINE_S) == 0, seen
    return seen.decode()


def test_a_picture_is_made(server: RunningServer, tmp_path: Path) -> None:
    result = run("txt2img", "a fox", *FAST, "-o", "fox.webp", "--url", server.url, folder=tmp_path)
    assert made(result) == ["fox.webp"]
    assert result.stderr == b""
    with Image.open(tmp_path / "fox.webp") as picture:
        assert picture.format == "WEBP"


def test_a_picture_is_changed_and_repainted(
    server: RunningServer, photo: Path, mask: Path, tmp_path: Path
) -> None:
    where = {"DARKROOM_URL": server.url}
    options = ("a cat", *FAST, "--image", str(photo), "--strength", "0.5")
    changed = run("img2img", *options, "-n", "2", "-o", "cat.png", folder=tmp_path, **where)
    assert made(changed) == ["cat-1.png", "cat-2.png"]
    piped = ("inpaint", "a cat", *FAST, "--image", "-", "--mask", str(mask), "-o", "-")
    painted = run(*piped, folder=tmp_path, given=photo.read_bytes(), **where)
    assert painted.returncode == 0, painted.stderr
    with Image.open(io.BytesIO(painted.stdout)) as picture:
        assert picture.format == "PNG"


@pytest.mark.slow
def test_a_terminal_shows_how_it_comes_along(server: RunningServer, tmp_path: Path) -> None:
    arguments = ("txt2img", "a fox", "--steps", "6", "--watch", "-o", "fox.png")
    arguments += ("--url", server.url)
    shown = on_a_terminal(*arguments, folder=tmp_path)
    assert "step 6 of 6" in shown
    assert "\x1b]1337" not in shown
    shown = on_a_terminal(*arguments, folder=tmp_path, TERM_PROGRAM="iTerm.app")
    assert "\x1b]1337;File=inline=1" in shown
    shown = on_a_terminal(*arguments, folder=tmp_path, TERM="xterm-kitty")
    assert "\x1b_Ga=T,f=100" in shown


def test_a_log_gets_lines(server: RunningServer, tmp_path: Path) -> None:
    arguments = ("txt2img", "a fox", *FAST, "--watch", "--json", "--url", server.url)
    result = run(*arguments, folder=tmp_path)
    (line,) = made(result)
    job = json.loads(line)
    assert job["status"] == "succeeded"
    assert job["request"]["seed"] == 7
    assert [Path(file).name for file in job["files"]] == [f"{job['id']}.png"]
    assert (tmp_path / job["files"][0]).is_file()
    assert f"{job['id']}: step 2 of 2" in result.stderr.decode()
    assert b"\x1b" not in result.stderr


def test_each_line_of_standard_input_is_a_prompt(server: RunningServer, tmp_path: Path) -> None:
    arguments = ("txt2img", "-", *FAST, "-o", "a.jpg", "--url", server.url)
    result = run(*arguments, folder=tmp_path, given="a fox\n\nein Käfer\n".encode())
    assert made(result) == ["a-1.jpg", "a-2.jpg"]
    with Client(server.url) as client:
        prompts = [job.request["prompt"] for job, _ in zip(client.jobs(), "ab", strict=False)]
    assert prompts == ["ein Käfer", "a fox"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_file_of_many(server: RunningServer, photo: Path, tmp_path: Path, form: str) -> None:
    if form == "json":
        rows = [
            {"prompt": "a fox", "num_inference_steps": 2, "seed": 1},
            {"prompt": "a cat", "num_inference_steps": 2, "image": str(photo), "width": None},
            {"prompt": "an owl", "num_inference_steps": 2, "width": 12},
        ]
        text = "\n".join(json.dumps(row) for row in rows)
    else:
        text = (
            "prompt,num_inference_steps,seed,image,width\n"
            f'"a ""red""\nfox",2,1,,\na cat,2,,{photo},\nan owl,2,,,12\n'
        )
    (tmp_path / "rows").write_text(text)
    arguments = ("batch", "rows", "-o", "out/", "--json", "--url", server.url)
    result = run(*arguments, folder=tmp_path)
    assert result.returncode == 1
    first, second = (json.loads(line) for line in result.stdout.decode().splitlines())
    assert (first["task"], first["request"]["seed"], second["task"]) == ("txt2img", 1, "img2img")
    assert len(list((tmp_path / "out").iterdir())) == 2
    words = result.stderr.decode()
    assert f"line {'3' if form == 'json' else '5'}:" in words
    assert "width:" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"prompt": "a"}\n{"prompt": "b", "steps": 3}', "line 2: there is no field steps"),
        ('{"prompt": "a"}\n{', "line 2 is not JSON"),
        ('{"prompt": "a"}\n3', "line 2 is not an object"),
        ('{"prompt": 3}', "line 1: prompt cannot be 3"),
        ('{"prompt": "a", "seed": true}', "line 1: seed cannot be True"),
        ('{"prompt": "a", "loras": [{"nam": "b"}]}', "loras is a list of"),
        ('{"prompt": "a", "output_format": "gif"}', "one of png, jpeg, webp"),
        ('{"seed": 3}', "line 1: prompt is missing"),
        ('{"prompt": "a", "task": "img2img"}', "image is missing"),
        ('{"prompt": "a", "task": "video"}', "task is one of"),
        ("prompt,seed\na,b", "line 2: seed is a whole number, not 'b'"),
        ("prompt,exact\na,maybe", "exact is true or false"),
        ("prompt\na,b", "line 2 has more cells"),
        ('prompt\n"a', "is not CSV"),
    ],
)
def test_a_wrong_line_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        batch.read(text)


def test_a_wrong_file_sends_nothing(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text('{"prompt": "a"}\n{"prompt": "b", "steps": 3}')
    unreachable = f"http://127.0.0.1:{free_port()}"
    result = run("batch", "rows", "--url", unreachable, folder=tmp_path)
    assert result.returncode == 2
    assert b"no field steps" in result.stderr


def test_ctrl_c_cancels_and_says_so(idle_server: RunningServer, tmp_path: Path) -> None:
    prompt = "a fox that is interrupted"
    with subprocess.Popen(
        [*COMMAND, "txt2img", prompt, "--watch", "--url", idle_server.url],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        # What a shell runs in the background ignores the key, and its children do.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        told = process.stderr.readline()  # so it waits
        process.send_signal(signal.SIGINT)
        told += process.stderr.read()
        assert process.wait(DEADLINE_S) == 130
    with Client(idle_server.url) as client:
        job = next(job for job in client.jobs() if job.request["prompt"] == prompt)
    assert job.status is JobStatus.CANCELLED
    assert f"interrupted; job {job.id} is cancelled" in told.decode()
    assert b"Traceback" not in told


@pytest.mark.slow
def test_a_job_may_be_left_to_itself_and_cancelled(
    idle_server: RunningServer, tmp_path: Path
) -> None:
    where = {"DARKROOM_URL": idle_server.url}
    (job_id,) = made(run("txt2img", "a fox", "--no-wait", folder=tmp_path, **where))
    listed = made(run("jobs", "--status", "queued", "-n", "1", folder=tmp_path, **where))
    assert listed[0].startswith(job_id)
    assert made(run("cancel", job_id, folder=tmp_path, **where)) == [f"{job_id}  cancelled"]
    made(run("txt2img", "a fox", "--no-wait", folder=tmp_path, **where))
    made(run("cancel", "--all", folder=tmp_path, **where))
    assert made(run("jobs", "--status", "queued", folder=tmp_path, **where)) == []


def test_pictures_are_listed_and_fetched(server: RunningServer, tmp_path: Path) -> None:
    where = {"DARKROOM_URL": server.url}
    made(run("txt2img", "a fox", *FAST, "-o", "fox.png", folder=tmp_path, **where))
    (line,) = made(run("images", "-n", "1", "--json", folder=tmp_path, **where))
    image_id = json.loads(line)["id"]
    assert made(run("image", image_id, "-o", "again.png", folder=tmp_path, **where)) == [
        "again.png"
    ]
    with Image.open(tmp_path / "fox.png") as one, Image.open(tmp_path / "again.png") as other:
        assert one.tobytes() == other.tobytes()


def test_prompts_of_others_do_nothing_to_the_terminal(
    idle_server: RunningServer, tmp_path: Path
) -> None:
    with Client(idle_server.url) as client:
        job = client.txt2img("\x1b]0;title\x07 a fox\x9b2J")
        (line,) = made(run("jobs", "-n", "1", "--url", idle_server.url, folder=tmp_path))
        job.cancel()
    assert "a fox" in line
    assert line.isprintable()


@pytest.mark.slow
def test_what_went_wrong_is_a_number(
    idle_server: RunningServer, scripted: Callable[..., ScriptedServer], tmp_path: Path
) -> None:
    def ends(*arguments: str, url: str = idle_server.url) -> tuple[int, str]:
        result = run(*arguments, "--url", url, folder=tmp_path)
        assert result.stdout == b""
        assert b"Traceback" not in result.stderr
        return result.returncode, result.stderr.decode()

    status, words = ends("txt2img", "a fox", "--width", "12")
    assert (status, "width: " in words) == (2, True)
    assert ends("txt2img", "a fox", "-o", "nowhere/fox.png")[0] == 2
    assert ends("txt2img", "a fox", "-o", "fox.gif")[0] == 2
    assert ends("txt2img", "a fox", url="nonsense")[0] == 2
    assert ends("models", url=f"http://127.0.0.1:{free_port()}")[0] == 3
    status, words = ends("models", url=scripted(problem(401)).url)
    assert (status, "darkroom pair" in words) == (4, True)
    assert ends("cancel", "nobody")[0] == 5
    assert ends("models", url=scripted(problem(507)).url)[0] == 6
    status, words = ends("txt2img", "a fox", "--timeout", "0.2")
    assert (status, "goes on" in words) == (124, True)
    with Client(idle_server.url) as client:
        for job in client.jobs(JobStatus.QUEUED):
            job.cancel()


def test_a_device_is_paired_by_the_address_on_the_terminal(
    idle_server: RunningServer, tmp_path: Path
) -> None:
    address = f"{idle_server.url}/#pair={new_code(idle_server)}"
    kept = {"DARKROOM_CREDENTIALS": str(tmp_path / "kept.json")}
    result = run("pair", address, "--name", "desk", folder=tmp_path, **kept)
    assert result.returncode == 0, result.stderr
    assert any("tintype" in line for line in made(run("models", folder=tmp_path, **kept)))
    again = run("pair", address, folder=tmp_path, **kept)
    assert again.returncode == 4


def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    script = made(run("completion", "bash", folder=tmp_path))
    assert any("_DARKROOM_CLIENT_COMPLETE=bash_complete" in line for line in script)
    completing = {"_DARKROOM_CLIENT_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    found = run(folder=tmp_path, COMP_WORDS="darkroom-client in", **completing)
    assert b"plain,inpaint" in found.stdout


def test_the_command_says_what_it_lacks() -> None:
    code = (
        "import sys; sys.modules['rich'] = None; from darkroom_client.terminal import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 1
    assert b"pip install 'darkroom-client[cli]'" in result.stderr


def test_importing_takes_little_and_warns_of_nothing() -> None:
    """Less than three times what its one dependency takes, whatever the speed of the machine."""
    code = (
        "import sys, time; began = time.process_time(); import {}\n"
        "taken = time.process_time() - began\n"
        "heavy = {{'torch', 'numpy', 'PIL', 'click', 'rich', 'zeroconf', 'mcp'}}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(taken)"
    )

    def seconds(module: str) -> float:
        command = [sys.executable, "-W", "error", "-c", code.format(module)]
        return float(subprocess.check_output(command))

    times = [(seconds("darkroom_client"), seconds("httpx2")) for _ in range(3)]
    ours, theirs = (min(column) for column in zip(*times, strict=True))
    assert ours < 3 * theirs, times


def test_the_wheel_is_small(tmp_path: Path) -> None:
    sdk = Path(__file__).parents[2] / "sdk"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=sdk,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 100_000
