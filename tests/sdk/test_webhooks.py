"""What a receiver believes, and what not. Signed by the specification's own library."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from darkroom_client import Client, InvalidRequestError, WebhookError, verify_webhook
from tests.serving import RunningServer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_700_000_000


@pytest.fixture(scope="module")
def body(idle_server: RunningServer) -> bytes:
    """A message about a job."""
    job = idle_server.submit()
    return json.dumps({"type": "job.cancelled", "timestamp": "", "data": job}).encode()


def signed(body: bytes, at: float = NOW, secret: str = SECRET) -> dict[str, str]:
    moment = datetime.fromtimestamp(at, UTC)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at)),
        "Webhook-Signature": Webhook(secret).sign("msg_1", moment, body.decode()),
    }


def read(body: bytes, headers: Mapping[str, str], secret: str = SECRET) -> str:
    return verify_webhook(body, headers, secret, clock=lambda: NOW).type


def test_what_is_signed_is_read(body: bytes) -> None:
    message = verify_webhook(body, signed(body), SECRET, clock=lambda: NOW)

    assert (message.id, message.type) == ("msg_1", "job.cancelled")
    assert message.job.request["prompt"] == "a red fox"


def test_one_good_signature_among_several_will_do(body: bytes) -> None:
    headers = signed(body)
    headers["Webhook-Signature"] = f"v1a,x v1,{'A' * 44} {headers['Webhook-Signature']}"

    assert read(body, headers) == "job.cancelled"


@pytest.mark.parametrize("age_s", [-301, 301])
def test_what_is_old_or_from_the_future_is_not_believed(body: bytes, age_s: int) -> None:
    with pytest.raises(WebhookError, match="300 s old"):
        read(body, signed(body, NOW - age_s))
    assert read(body, signed(body, NOW - age_s // 2))


def test_another_body_id_or_secret_is_not_believed(body: bytes) -> None:
    for changed, headers, secret in (
        (body + b" ", signed(body), SECRET),
        (body, {**signed(body), "Webhook-Id": "msg_2"}, SECRET),
        (body, {**signed(body), "Webhook-Timestamp": str(NOW + 1)}, SECRET),
        (body, {**signed(body), "Webhook-Signature": ""}, SECRET),
        (body, {**signed(body), "Webhook-Signature": "v1,\u00e4"}, SECRET),
        (body, signed(body), "whsec_" + "A" * 32),
    ):
        with pytest.raises(WebhookError, match="signature"):
            read(changed, headers, secret)


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_named(body: bytes, name: str) -> None:
    headers = signed(body)
    del headers[name]

    with pytest.raises(WebhookError, match=name.lower()):
        read(body, headers)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"not JSON", b'{"type":"x","data":{}}'])
def test_another_programs_message_is_not_read(content: bytes) -> None:
    with pytest.raises(WebhookError, match="message"):
        read(content, signed(content))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!"])
def test_a_secret_that_is_none_is_the_receivers_mistake(body: bytes, secret: str) -> None:
    with pytest.raises(ValueError, match="darkroom webhooks secret"):
        read(body, signed(body), secret)


def test_an_address_that_is_not_allowed_is_refused(idle_client: Client) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        idle_client.txt2img("a fox", webhook="http://127.0.0.1:9/told")

    assert [error.pointer for error in refusal.value.errors] == ["#/webhook"]
