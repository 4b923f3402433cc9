"""What docs/webhooks.md says is run as it stands there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from darkroom.config import WebhookSettings
from tests.serving import free_port, running
from tests.test_docs import ROOT, at, blocks, shell
from tests.webhooks.conftest import webhook

PAGE = (ROOT / "docs/webhooks.md").read_text()


@pytest.mark.slow
def test_the_receiver_is_told(tmp_path: Path) -> None:
    (receiver,) = blocks("python", PAGE)
    curl, secret = blocks("sh", PAGE)
    (settings,) = blocks("yaml", PAGE)
    port = str(free_port())
    allow = json.dumps(yaml.safe_load(settings)["webhooks"]["allow"]).replace("9000", port)
    with running(tmp_path, process="web", DARKROOM_WEBHOOKS__ALLOW=allow) as server:
        found = subprocess.run(
            [sys.executable, "-m", *secret.split()],
            env={**os.environ, "DARKROOM_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        told = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", receiver.replace("9000", port)],
            env={**os.environ, "WEBHOOK_SECRET": found.stdout.strip()},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            asked = shell(at(server, curl.replace("9000", port)), capture_output=True)
            job = json.loads(asked.stdout)
            server.http.delete(job["url"])
            assert told.stdout is not None
            assert told.stdout.readline() == f"job.cancelled {job['id']}\n"
            webhook(server, job["id"], "delivered")
        finally:
            told.kill()
            told.wait()
            if told.stdout is not None:
                told.stdout.close()


def test_it_is_given_up_when_the_page_says() -> None:
    settings = WebhookSettings()
    waits = [min(settings.retry_s * 4**n, 6 * 3600) for n in range(settings.max_attempts - 1)]

    assert "after about 20 hours" in " ".join(PAGE.split())
    assert sum(waits) / 3600 == pytest.approx(20, abs=1)
