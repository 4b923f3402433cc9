"""The mobile client's types are made from the API document."""

import subprocess
import sys
from pathlib import Path

from tests.serving import RunningServer

CLIENT = Path(__file__).parents[2] / "mobile_client"
TYPES = CLIENT / "src/lib/transport/schema.d.ts"


def test_the_clients_types_are_those_of_the_api(server: RunningServer, tmp_path: Path) -> None:
    document, made = tmp_path / "openapi.json", tmp_path / "schema.d.ts"
    document.write_bytes(server.http.get("/openapi.json").content)

    npm = [sys.executable, CLIENT / "build_client.py", "exec", "--", "openapi-typescript"]
    subprocess.run([*npm, document, "--output", made], check=True)

    assert made.read_text() == TYPES.read_text(), "the API has changed; run: make generate"
