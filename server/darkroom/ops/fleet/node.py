"""Ray's node on this box: the command that runs it, its environment, and its folder.

A node is a child process that ends with its parent, and its own children with it. Ray's processes
listen on every address of the machine unless the node's is 127.0.0.1, so they talk TLS to each
other (`node_tls.py`), and ask for a token. The agent for environments has no TLS: it listens on the
node's address, for the node itself.
"""

import hashlib
import json
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.ops.fleet import node_tls

NAMESPACE = "darkroom"
BOX = "darkroom-box:"  # and a name: the resource of each box, by which its workers are placed
OBJECT_STORE_BYTES = 80 * 2**20  # nothing is passed through it; Ray takes no less
# Offsets from `fleet.port`. Ray would choose most of them at random.
PORTS = {
    "node-manager-port": 1,
    "object-manager-port": 2,
    "runtime-env-agent-port": 3,
    "dashboard-agent-listen-port": 4,
    "dashboard-agent-grpc-port": 5,
    "metrics-export-port": 6,
    "min-worker-port": 10,
    "max-worker-port": 59,
}
RECONNECT_S = 24 * 3600  # that a box's node and workers go on without the head


class NoRayError(DarkroomError):
    """Ray is not installed, or cannot be started. Says what to do."""


def check() -> None:
    """Raise NoRayError if Ray is not installed. It is not imported."""
    if find_spec("ray") is None:
        raise NoRayError(
            "Ray starts the workers of a fleet: `pip install 'darkroom-server[fleet]'`"
        )


def head_command(settings: Settings) -> list[str]:
    """The command of the head, which knows the nodes and runs no worker."""
    fleet = settings.fleet
    return [
        *_start(settings, fleet.address),
        *("--head", f"--port={fleet.port}", "--num-gpus=0"),
        *("--include-dashboard=false", "--no-monitor"),  # it scales machines; we have none to scale
        "--resources={}",
    ]


def box_command(settings: Settings, name: str, address: str, head: str) -> list[str]:
    """The command of the node of a box that joins the head at HOST:PORT."""
    resources = json.dumps({f"{BOX}{name}": 1})
    return [*_start(settings, address), f"--address={head}", f"--resources={resources}"]


def _start(settings: Settings, address: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
        f"--node-ip-address={address}",
        "--num-cpus=0",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={folder(settings)}",
        "--disable-usage-stats",
        *(f"--{name}={settings.fleet.port + offset}" for name, offset in PORTS.items()),
    ]


def environment(
    settings: Settings, token: str, address: str, storage: Path | None = None
) -> dict[str, str]:
    """The environment of Ray's processes, and of programs that connect to them.

    Args:
        token: Ray's.
        address: of this node.
        storage: where the head keeps what it knows, so that it is the same one after a restart.
    """
    given = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_enable_metrics_collection": "0",
        # A busy machine takes long to start Ray's own processes, and those of actors.
        "RAY_agent_register_timeout_ms": "120000",
        "RAY_worker_register_timeout_seconds": "300",
        # Else a node that is stopped first waits half a minute.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # The worker watches its own memory; Ray would end it for that of other programs.
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_S),
    }
    given |= node_tls.environment(settings.ray_tls_dir, token, address)
    if storage is not None:
        storage.mkdir(parents=True, exist_ok=True)
        given |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage)}
    return os.environ | given


def folder(settings: Settings) -> Path:
    """Ray's own folder, for this user alone: short, because a socket's path is limited."""
    mark = hashlib.sha256(os.fsencode(settings.data_dir)).hexdigest()[:10]
    path = Path(tempfile.gettempdir(), f"dr-{os.geteuid()}-{mark}")
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise NoRayError(f"{path} belongs to somebody else; remove it, or set TMPDIR")
    return path
