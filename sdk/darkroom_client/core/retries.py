"""Whether to ask again, and when."""

from dataclasses import dataclass

from darkroom_client.core.answer import Answer

PASSING = frozenset({429, 503})


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter, overruled by the server's `Retry-After`.

    Attributes:
        max_retries: after the first attempt.
        first_pause_s: doubles with every retry.
        max_pause_s: where doubling ends.
        max_retry_after_s: a server that wants a longer pause gets no retry: the caller should
            hear of it instead of hanging, and asking earlier would be rude.
    """

    max_retries: int = 2
    first_pause_s: float = 0.5
    max_pause_s: float = 8.0
    max_retry_after_s: float = 60.0

    def pause_s(self, retries: int, answer: Answer | None, chance: float) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        Args:
            retries: made so far.
            answer: a refusal, or None when the connection failed.
            chance: uniform from 0 to 1; spreads clients that failed together.
        """
        if retries >= self.max_retries:
            return None
        if answer is not None:
            if answer.status not in PASSING:
                return None
            wanted = answer.retry_after_s
            if wanted is not None:
                return wanted if wanted <= self.max_retry_after_s else None
        return self.backoff_s(retries, chance)

    def backoff_s(self, retries: int, chance: float) -> float:
        """Between half of the nominal pause and all of it, in seconds."""
        # The exponent is bounded for a stream that is re-attached for hours.
        nominal = min(self.max_pause_s, self.first_pause_s * 2.0 ** min(retries, 16))
        return nominal * (0.5 + chance / 2)
