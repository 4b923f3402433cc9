"""A look as HTML, and as a line for those who cannot show HTML."""

import base64
from collections.abc import Iterator
from html import escape

from darkroom_client.notebook.look import Look, Shown

FORMATS = frozenset({"image/png", "image/jpeg", "image/webp"})
HEIGHT_EM = 12  # of every picture, so that the page does not jump while one develops


def html(look: Look) -> str:
    """A look as a fragment of HTML: no script, no address to fetch, all text escaped."""
    parts = [*_state(look), *map(_note, look.notes)]
    pictures = "".join(_picture(shown, look) for shown in look.pictures)
    if pictures:
        parts.append(f'<div style="display:flex;flex-wrap:wrap;gap:.5em">{pictures}</div>')
    return f'<div class="darkroom-job">{"".join(parts)}</div>'


def line(look: Look) -> str:
    """A look as one line of text, without anything that a terminal would obey."""
    said = ", ".join(part for part in (look.doing, look.left) if part)
    joined = " ".join(f"{look.title}: {said}".split())
    return "".join(char if char.isprintable() else "\ufffd" for char in joined)


def _state(look: Look) -> Iterator[str]:
    """One line when it is over, else a bar below the prompt."""
    title, doing = f"<em>{escape(look.title)}</em>", escape(look.doing)
    if not look.busy:
        yield f"<div>{title}: <span>{doing}</span></div>"
        return
    # A bar without a value says that the time is unknown.
    made = look.progress
    value = "" if made is None else f' value="{made.step:d}" max="{max(1, made.steps):d}"'
    bar = f'<progress{value} style="width:20em" aria-label="{doing}"></progress>'
    left = f", {escape(look.left)}" if look.left else ""
    yield f"<div>{title}</div><div>{bar} <span>{doing}{left}</span></div>"


def _note(note: str) -> str:
    return f"<div><small>note: {escape(note)}</small></div>"


def _picture(shown: Shown, look: Look) -> str:
    if shown.content_type not in FORMATS:
        return ""
    source = f"data:{shown.content_type};base64,{base64.b64encode(shown.data).decode()}"
    return f'<img src="{source}" alt="{escape(look.title)}" style="height:{HEIGHT_EM}em">'
