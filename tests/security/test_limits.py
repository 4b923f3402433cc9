"""How often a caller may ask."""

import json
from pathlib import Path

import pytest

from darkroom.requests import Scope
from tests.security.doors import assert_refused, client, tokens_in
from tests.serving import running


def test_each_token_has_its_share_of_requests(tmp_path: Path) -> None:
    with running(tmp_path, process="web", DARKROOM_AUTH__REQUESTS_PER_MINUTE="5") as server:
        with tokens_in(tmp_path) as tokens:
            secrets = [tokens.create(name, Scope.USE)[1] for name in ("busy", "calm")]
        with client(server, secrets[0]) as busy, client(server, secrets[1]) as calm:
            assert [busy.get("/me").status_code for _ in range(5)] == [200] * 5
            stopped = busy.get("/me")
            assert_refused(stopped, 429, "too-many-requests")
            assert 1 <= int(stopped.headers["retry-after"]) <= 61
            assert busy.get("/models").status_code == 429
            assert busy.get("/healthz").status_code == 200
            assert calm.get("/me").status_code == 200
        with client(server) as stranger:
            assert [stranger.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
        # Programs on this machine could keep it busy without asking.
        assert [server.http.get("/me").status_code for _ in range(10)] == [200] * 10


@pytest.mark.slow
def test_a_large_body_counts_once(tmp_path: Path) -> None:
    large = json.dumps({"prompt": "a fox", "strange": 70_000 * "x"})
    with running(tmp_path, process="web", DARKROOM_AUTH__REQUESTS_PER_MINUTE="4") as server:
        with tokens_in(tmp_path) as tokens:
            _, secret = tokens.create("phone", Scope.USE)
        with client(server, secret) as phone:
            headers = {"content-type": "application/json"}
            answers = [phone.post("/txt2img", content=large, headers=headers) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [422] * 4 + [429]
