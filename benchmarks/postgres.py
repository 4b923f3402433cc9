"""A PostgreSQL server of one's own, and empty databases on it: for benchmarks and tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psutil
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from benchmarks.servers import STOP_TIMEOUT_S, free_port
from darkroom.storage import database

USER = "postgres"  # Debian's; initdb refuses to run as root
TEMPLATE = "migrated"
PROGRAMS = Path("/usr/lib/postgresql")


class Server:
    """A running server, on a socket of its own, and on `port` of an address if it has one."""

    def __init__(self, folder: Path, control: list[str], port: int) -> None:
        self.folder, self._control, self.port = folder, control, port
        self._numbers = count(1)
        self.execute(f"CREATE DATABASE {TEMPLATE}")
        database.migrate(self.url(TEMPLATE))

    def url(self, name: str = USER) -> URL:
        return URL.create(
            "postgresql+psycopg",
            USER,
            database=name,
            query={"host": str(self.folder), "port": str(self.port)},
        )

    def execute(self, statement: str) -> None:
        """Run a statement outside transactions, as those that make databases have to be."""
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def migrated(self) -> URL:
        """A new database with the newest schema and nothing in it."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.url(name)

    def drop(self, url: URL) -> None:
        self.execute(f"DROP DATABASE {url.database} WITH (FORCE)")

    def control(self, *arguments: str) -> None:
        """Run `pg_ctl`."""
        command = [*self._control, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=_user())

    def start(self) -> None:
        """Start it again after `kill`."""
        self.control("-l", str(self.folder / "log"), "start")

    def kill(self) -> None:
        """End all its processes at once, as after a crash."""
        self.control("-m", "immediate", "stop")

    def crash(self) -> None:
        """Kill all its processes, as the kernel does that runs out of memory, and start it."""
        main = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        killed = [main, *main.children()]
        for process in killed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(killed, STOP_TIMEOUT_S)
        self.start()


def is_installed() -> bool:
    """Whether Debian's package is."""
    return any(PROGRAMS.glob("*/bin/initdb"))


@contextmanager
def running(address: str | None = None, *, synced: bool) -> Iterator[Server]:
    """Context with a server, as Debian installs it.

    Args:
        synced: whether commits are on disk when they return, which tests have no use for.
        address: of this machine, where it asks for passwords. Its socket asks for none.
    """
    bin_dir = max(PROGRAMS.glob("*/bin"), key=lambda path: int(path.parent.name))
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # of a short name: a socket's path is limited
    if _user() is not None:
        shutil.chown(folder, USER)
    data = folder / "data"
    init = [str(bin_dir / "initdb"), "--auth=trust", "--no-sync", f"--username={USER}"]
    init += ["--encoding=UTF8", "--locale=C.UTF-8", "-D", str(data)]
    control = [str(bin_dir / "pg_ctl"), "-D", str(data), "-w"]
    port = free_port() if address else 5432
    try:
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL, user=_user(), cwd=folder)
        with (data / "postgresql.conf").open("a") as config:
            config.write(f"listen_addresses = '{address or ''}'\nport = {port}\n")
            config.write(f"unix_socket_directories = '{folder}'\n")
            config.write("max_connections = 200\n" + ("" if synced else "fsync = off\n"))
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all all scram-sha-256\n")
        command = [*control, "-l", str(folder / "log"), "start"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=_user())
        yield Server(folder, control, port)
    finally:
        if (data / "postmaster.pid").exists():
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, user=_user())
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str | None:
    return USER if os.geteuid() == 0 else None
