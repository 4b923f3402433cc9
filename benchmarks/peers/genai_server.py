"""OpenVINO GenAI's text-to-image pipeline behind HTTP and a lock.

It runs in an environment of its own, without Darkroom, and needs openvino-genai and Pillow.

    python benchmarks/peers/genai_server.py FOLDER --port 7862
"""

import argparse
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openvino_genai
from PIL import Image


def handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    """GET answers when the model is there; POST draws with the arguments that it is sent."""
    scheduler = openvino_genai.Scheduler.from_config(
        folder / "scheduler" / "scheduler_config.json",
        openvino_genai.Scheduler.Type.EULER_DISCRETE,
    )
    pipeline = openvino_genai.Text2ImagePipeline(folder, "CPU")
    pipeline.set_scheduler(scheduler)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"ok", "text/plain")

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            arguments: dict[str, Any] = json.loads(self.rfile.read(length))
            with lock:
                pixels = pipeline.generate(arguments.pop("prompt"), **arguments).data[0].copy()
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "PNG")
            self._answer(picture.getvalue(), "image/png")

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="written by `optimum-cli export openvino`")
    parser.add_argument("--port", type=int, default=7862)
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), handler(arguments.folder))
    server.serve_forever()


if __name__ == "__main__":
    main()
