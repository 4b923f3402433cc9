"""The scripts that a request may name."""

from darkroom.api.errors import ProblemError

SD_UPSCALE = "sd upscale"


def check(name: str | None, *known: str) -> str | None:
    """The script that a request names, in our spelling; None if it names none.

    Raises:
        ProblemError: 422, there is none of that name for this task.
    """
    wanted = (name or "").strip().lower()
    if wanted in ("", "none"):
        return None
    if wanted not in known:
        raise ProblemError(422, "script", "Script not found", f"there is no script {name!r}")
    return wanted
