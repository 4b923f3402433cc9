"""The SDK's requests are made from the API document."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.serving import RunningServer

SDK = Path(__file__).parents[2] / "sdk"


@pytest.fixture
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_requests", SDK / "write_requests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_requests_are_those_of_the_api(writer: ModuleType, tmp_path: Path) -> None:
    writer.write(tmp_path, writer.document())

    written = tmp_path / "core" / "requests.py"
    committed = SDK / "darkroom_client" / "core" / "requests.py"
    assert written.read_text() == committed.read_text(), "the API has changed; run: make generate"


def test_a_server_publishes_the_same_document(writer: ModuleType, server: RunningServer) -> None:
    assert json.loads(json.dumps(writer.document())) == server.http.get("/openapi.json").json()


def test_a_new_field_comes_with_its_type_range_and_default(writer: ModuleType) -> None:
    schemas = writer.document()["components"]["schemas"]
    schemas["Img2ImgRequest"]["properties"]["shift"] = {
        "type": "number",
        "description": "Shift of the schedule.",
        "minimum": 0,
        "maximum": 12,
        "default": 3.0,
    }

    written = writer.requests(schemas)

    assert "shift: Shift of the schedule. 0 to 12. 3.0 by default." in written
    assert "shift: float | None = None" in written
