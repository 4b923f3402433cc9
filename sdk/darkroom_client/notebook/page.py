"""A look as HTML, and as a line for those who cannot show HTML."""

import base64
from html import escape

from darkroom_client.notebook.look import Look, Shown

FORMATS = frozenset({"image/png", "image/jpeg", "image/webp"})
HEIGHT_EM = 12  # of every picture, so that the page does not jump while one develops


def html(look: Look) -> str:
    """A look as a fragment of HTML: no script, no address to fetch, all text escaped."""
    parts = [_title(look), _state(look), *map(_note, look.notes)]
    pictures = "".join(_picture(shown, look) for shown in look.pictures)
    if pictures:
        parts.append(f'<div style="display:flex;flex-wrap:wrap;gap:.5em">{pictures}</div>')
    return f'<div class="darkroom-job">{"".join(parts)}</div>'


def line(look: Look) -> str:
    """A look as one line of text, without anything that a terminal would obey."""
    said = ", ".join(part for part in (look.doing, look.left) if part)
    joined = " ".join(f"{look.title}: {said}".split())
    return "".join(char if char.isprintable() else "\ufffd" for char in joined)


def _title(look: Look) -> str:
    return f"<div><em>{escape(look.title)}</em></div>"


def _state(look: Look) -> str:
    left = f", {escape(look.left)}" if look.left else ""
    said = f"<span>{escape(look.doing)}{left}</span>"
    if look.busy and look.progress is not None:
        made = look.progress
        bar = f'<progress value="{made.step:d}" max="{max(1, made.steps):d}"'
    elif look.busy:
        bar = "<progress"  # no value: it waits, nobody knows how long
    else:
        return f"<div>{said}</div>"
    return (
        f'<div>{bar} style="width:20em" aria-label="{escape(look.doing)}"></progress> {said}</div>'
    )


def _note(note: str) -> str:
    return f"<div><small>note: {escape(note)}</small></div>"


def _picture(shown: Shown, look: Look) -> str:
    if shown.content_type not in FORMATS:
        return ""
    source = f"data:{shown.content_type};base64,{base64.b64encode(shown.data).decode()}"
    return f'<img src="{source}" alt="{escape(look.title)}" style="height:{HEIGHT_EM}em">'
