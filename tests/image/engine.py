"""Who builds and runs containers: Docker where it answers, else Podman, which is told the same."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

BASE = "docker.io/library/debian:bookworm-slim"
DEBIAN = "http://deb.debian.org/debian"
PODMAN_PACKAGES = ("podman", "runc", "debootstrap")
WHEELS = "/run/wheels"
PLENTY = 16_384  # of files, or of processes


class NoEngineError(Exception):
    """Nothing here can run containers. Says what to do."""


@dataclass(frozen=True)
class Engine:
    """A command that takes Docker's words.

    Attributes:
        command: `docker` or `podman`.
        compose: what takes compose files for it.
        environment: what both are run with.
        build_options: for this machine.
    """

    command: str
    compose: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    build_options: tuple[str, ...] = ()

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Let it do something. Standard output and error are kept apart.

        Raises:
            RuntimeError: it failed, and was not to.
        """
        return self._do([self.command, *arguments], {}, check)

    def say(self, *arguments: str) -> str:
        """What it says."""
        return self.run(*arguments).stdout.strip()

    def composed(
        self, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The same for compose.

        Args:
            arguments: of the command.
            check: whether it must not fail.
            environment: for `${…}` in the files.
        """
        return self._do([*self.compose, *arguments], environment, check)

    def _do(
        self, command: list[str], environment: dict[str, str], check: bool
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **self.environment, **environment},
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done


@contextmanager
def engine() -> Iterator[Engine]:
    """Docker if its daemon answers; else Podman, with a storage of its own that is deleted after.

    Raises:
        NoEngineError: see there.
    """
    with TemporaryDirectory(prefix="darkroom-image-") as folder:
        here = Path(folder)
        if _answers("docker", "version") and _answers("docker", "compose", "version"):
            yield Engine("docker", ("docker", "compose"), build_options=_secrets(here, None))
            return
        _require_podman()
        podman = Engine(
            "podman",
            (str(Path(sys.executable).with_name("podman-compose")),),
            {
                "CONTAINERS_CONF": str(_write(here / "containers.conf", _containers_conf())),
                "CONTAINERS_STORAGE_CONF": str(_write(here / "storage.conf", _storage_conf(here))),
            },
            # Docker's own form: OCI's has no health check.
            ("--format", "docker", "--layers", *_secrets(here, os.environ.get("PIP_FIND_LINKS"))),
        )
        try:
            _provide_base(podman, here)
            yield podman
        finally:
            # Not `system reset`, which takes networks of the machine's own with it.
            podman.run("rm", "--all", "--force", check=False)
            mounted = [
                "umount",
                str(here / "graph" / "overlay"),
            ]  # by Podman, upon itself, at times
            subprocess.run(mounted, check=False, capture_output=True)


def _answers(*command: str) -> bool:
    return shutil.which(command[0]) is not None and (
        subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def _require_podman() -> None:
    wanted = [name for name in PODMAN_PACKAGES if not shutil.which(name)]
    if os.geteuid() == 0 and wanted and shutil.which("apt-get"):
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *wanted]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    elif wanted or os.geteuid() != 0:
        raise NoEngineError(
            "Containers are built and run by Docker, which does not answer, or by Podman; as "
            f"root on Debian: apt-get install {' '.join(PODMAN_PACKAGES)}, then make image-check"
        )


def _provide_base(podman: Engine, here: Path) -> None:
    """The base image, made from Debian's packages where its registry is out of reach."""
    if podman.run("pull", "--quiet", BASE, check=False).returncode == 0:
        return
    root = here / "base"
    bootstrap = ["debootstrap", "--variant=minbase", "bookworm", str(root), DEBIAN]
    subprocess.run(bootstrap, check=True, stdout=subprocess.DEVNULL)
    packed = here / "base.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(packed), "."], check=True)
    podman.run("import", str(packed), BASE)
    shutil.rmtree(root)
    packed.unlink()


def _secrets(here: Path, wheels: str | None) -> tuple[str, ...]:
    """What this machine has to tell pip.

    Args:
        here: for files.
        wheels: a folder of wheels of the machine's, from which torch is taken too.
    """
    lines = ["[global]"]
    options: tuple[str, ...] = ()
    authorities = os.environ.get("SSL_CERT_FILE")
    if authorities:  # more than Debian knows
        lines.append("cert = /run/secrets/ca")
        options += ("--secret", f"id=ca,src={authorities}")
    if wheels:
        lines.append(f"find-links = {WHEELS}")
        options += ("--volume", f"{wheels}:{WHEELS}:ro", "--build-arg", "CPU_INDEX=")
    conf = _write(here / "pip.conf", "\n".join((*lines, "")))
    return ("--secret", f"id=pip,src={conf}", *options)


def _containers_conf() -> str:
    # By itself Podman asks for higher limits than a root without CAP_SYS_RESOURCE may set, and for
    # systemd, which may not be there. It lowers its own, too.
    limits = [
        f"{name}={_at_most_plenty(kind)}:{_at_most_plenty(kind)}"
        for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    ]
    return (
        f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )


def _at_most_plenty(kind: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return PLENTY if hard == resource.RLIM_INFINITY else min(hard, PLENTY)


def _storage_conf(here: Path) -> str:
    return (
        f'[storage]\ndriver = "overlay"\ngraphroot = "{here / "graph"}"\n'
        f'runroot = "{here / "run"}"\n'
    )


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
