"""Reading the line in which tools say how a picture was made (`modules/infotext_utils.py`)."""

import json
import re

from darkroom.requests import MAX_PROMPT_CHARS

NEGATIVE = "Negative prompt:"
MAX_CHARS = 4 * MAX_PROMPT_CHARS
# A name, and a value that is either a JSON string or free of commas.
SETTING = re.compile(r'\s*([\w][\w \-/]{0,99}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
FEWEST = 3  # settings; a line with less is a line of the prompt


def parse(text: str) -> dict[str, str]:
    """The prompt and settings by A1111's names; sizes also apart, as `Size-1` and `Size-2`.

    Args:
        text: what stands in the chunk `parameters`; nothing gives nothing.
    """
    text = text[:MAX_CHARS].strip()
    if not text:
        return {}
    *lines, last = text.split("\n")
    settings = SETTING.findall(last)
    if len(settings) < FEWEST:
        lines, settings = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in lines:
        if line.startswith(NEGATIVE):
            current, line = negative, line.removeprefix(NEGATIVE).lstrip()
        current.append(line)
    found = {"Prompt": "\n".join(prompt).strip(), "Negative prompt": "\n".join(negative).strip()}
    for name, value in settings:
        plain = _unquoted(value.strip())
        size = SIZE.fullmatch(plain)
        if size:
            found |= {f"{name}-1": size[1], f"{name}-2": size[2]}
        else:
            found[name] = plain
    return found


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        text = json.loads(value)
    except ValueError:
        return value
    return text if isinstance(text, str) else value
