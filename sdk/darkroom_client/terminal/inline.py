"""Pictures in terminals that can show them."""

import base64
import io
import os
from collections.abc import Callable, Iterator, Mapping

KITTY_CHUNK = 4096  # bytes of base64 in one escape, by kitty's graphics protocol
PREVIEW_ID = 7860  # so that a preview takes the place of the one before

Encode = Callable[[bytes, int], str]
"""A picture's file and how many rows of text it takes to the escapes that show it."""


def encoder(environment: Mapping[str, str] = os.environ) -> Encode | None:
    """How this terminal is shown a picture, or None if it cannot.

    By what terminals say of themselves; asking them takes an answer out of somebody's keyboard
    input. tmux and screen pass pictures on only to some, so they count as terminals that cannot.
    """
    if "TMUX" in environment or environment.get("TERM", "").startswith(("screen", "tmux")):
        return None
    program = environment.get("TERM_PROGRAM", "")
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return iterm
    kitty = "KITTY_WINDOW_ID" in environment or "kitty" in environment.get("TERM", "")
    if kitty or program == "ghostty":
        return kitty_png
    return None


def iterm(picture: bytes, rows: int) -> str:
    """iTerm2's inline images; any format."""
    encoded = base64.b64encode(picture).decode()
    head = f"inline=1;size={len(picture)};height={rows};preserveAspectRatio=1"
    return f"\x1b]1337;File={head}:{encoded}\x07"


def kitty_png(picture: bytes, rows: int) -> str:
    """kitty's graphics protocol, which takes PNG. Leaves the cursor where it is.

    Raises:
        ImportError: Pillow is not installed, and the picture is no PNG.
    """
    encoded = base64.b64encode(_as_png(picture)).decode()
    head = f"a=T,f=100,i={PREVIEW_ID},p=1,r={rows},C=1,q=2"
    return "".join(_kitty_escapes(head, encoded))


def _kitty_escapes(head: str, encoded: str) -> Iterator[str]:
    for at in range(0, len(encoded), KITTY_CHUNK):
        more = int(at + KITTY_CHUNK < len(encoded))
        control = f"{head},m={more}" if at == 0 else f"m={more}"
        yield f"\x1b_G{control};{encoded[at : at + KITTY_CHUNK]}\x1b\\"


def _as_png(picture: bytes) -> bytes:
    if picture.startswith(b"\x89PNG"):
        return picture
    import PIL.Image

    buffer = io.BytesIO()
    with PIL.Image.open(io.BytesIO(picture)) as opened:
        opened.save(buffer, "PNG")
    return buffer.getvalue()
