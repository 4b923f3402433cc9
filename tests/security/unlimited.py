"""Settings under which a server counts neither jobs nor requests, for tests that send very many."""

UNLIMITED = {
    "DARKROOM_QUEUE__MAX_PENDING": "1000000",
    "DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": "1000000",
    "DARKROOM_AUTH__REQUESTS_PER_MINUTE": "1000000",
    "DARKROOM_AUTH__FAILURES_PER_MINUTE": "1000000",
}
