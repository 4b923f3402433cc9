"""Programs that tests run and pip does not install. A test whose program is missing is skipped.

The Makefile runs this file before anything is installed, so it needs the standard library alone:

    python3 tests/programs.py yes         install what is missing, if root and on Debian
    python3 tests/programs.py no          install nothing
    python3 tests/programs.py required    as yes, but fail if something is missing then

With `required`, tests fail for a missing program, too; so they do in CI (`CI=true`) without `no`.
"""

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGES = {  # Debian's
    "WebKitWebDriver": "webkit2gtk-driver",
    "Xvfb": "xvfb",
    "caddy": "caddy",
    "chromium": "chromium",
    "curl": "curl",
    "firefox-esr": "firefox-esr",
    "ip": "iproute2",
    "nginx": "nginx-light",
    "pg_createcluster": "postgresql",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
}
RECOMMENDED = {"chromium"}  # packages installed with the fonts and helpers that Debian recommends
SYSTEM = "DARKROOM_TEST_SYSTEM"  # environment variable: yes, no or required
SKIPPED = re.compile(r"needs (\S+), which is not installed")


def find(name: str) -> str | None:
    """The program's path. Debian keeps servers in /usr/sbin, which is not on everybody's path."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path)


def program(name: str) -> str:
    """The program's path; without it the test is skipped, or fails if all are required."""
    import pytest

    found = find(name)
    if found is None:
        reason = f"needs {name}, which is not installed"
        wanted = os.environ.get(SYSTEM)
        if wanted == "required" or (os.environ.get("CI") == "true" and wanted != "no"):
            pytest.fail(f"{reason}; {how_to_install([name])}", pytrace=False)
        pytest.skip(reason)
    return found


def missing() -> list[str]:
    return [name for name in PACKAGES if find(name) is None]


def how_to_install(names: "Iterable[str]") -> str:
    return f"on Debian: sudo apt-get install {' '.join(sorted({PACKAGES[n] for n in names}))}"


def summary(reasons: "Iterable[str]") -> list[str]:
    """Lines that say which programs these reasons miss; none if they miss none."""
    names = [found[1] for reason in reasons if (found := SKIPPED.search(reason))]
    if not names:
        return []
    each = ", ".join(f"{name} ({names.count(name)})" for name in sorted(set(names)))
    return [
        f"{len(names)} tests were skipped because programs are not installed: {each}.",
        f"To run them, install these programs; {how_to_install(names)}",
    ]


def install(names: list[str]) -> None:
    """Install packages as root. Raises `subprocess.CalledProcessError`; apt-get has said why."""
    packages = {PACKAGES[name] for name in names}
    print(
        f"Installing system packages as root, for tests: {' '.join(sorted(packages))}\n"
        "(`make test SYSTEM=no` goes without them and skips the tests that need them)",
        flush=True,
    )
    quietly = ("apt-get", "-qq", "install", "-y")
    subprocess.run(["apt-get", "-qq", "update"], check=True)
    for chosen, options in (
        (packages & RECOMMENDED, ()),
        (packages - RECOMMENDED, ("--no-install-recommends",)),
    ):
        if chosen:
            subprocess.run(
                [*quietly, *options, *sorted(chosen)], stdout=subprocess.DEVNULL, check=True
            )


def main(system: str) -> str | None:
    """Do what the argument asks. Returns why that cannot be, or None."""
    if system not in ("yes", "no", "required"):
        return f"SYSTEM is yes, no or required, not {system!r}"
    names = missing()
    if not names or system == "no":
        return None
    if os.geteuid() == 0 and shutil.which("apt-get"):
        try:
            install(names)
        except subprocess.CalledProcessError as error:
            return f"{' '.join(error.cmd)} failed; `make test SYSTEM=no` goes without"
        names = missing()
    if names and system == "required":
        return f"Missing: {', '.join(names)}. Install these programs; {how_to_install(names)}"
    if names:
        print(f"Not installed: {', '.join(names)}. The tests that need them are skipped.")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
