"""Words for colours: which one a picture has, and how it looks in another one."""

import colorsys
from collections import Counter

import numpy as np
from PIL import Image

BACKGROUNDS = {
    "white": (246, 246, 244),
    "black": (28, 28, 32),
    "grey": (150, 152, 158),
    "red": (206, 66, 66),
    "orange": (240, 150, 60),
    "yellow": (246, 214, 90),
    "green": (92, 170, 104),
    "blue": (84, 140, 214),
    "purple": (142, 100, 190),
    "pink": (244, 176, 196),
}
# Of 255, as Pillow's HSV has them.
HUES = {"red": 0, "orange": 15, "yellow": 36, "green": 88, "blue": 150, "purple": 192, "pink": 232}
GREYS = ("black", "white")
ENOUGH = 0.35  # of the opaque pixels have a colour that names the picture


def word(red: float, green: float, blue: float) -> str:
    """The word for a colour; the arguments are 0 to 1."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.25:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.8 else "grey"
    if hue < 0.025 or hue > 0.95:
        return "red"
    if hue < 0.085:
        return "brown" if value < 0.65 else "orange"
    for limit, name in ((0.19, "yellow"), (0.45, "green"), (0.7, "blue"), (0.82, "purple")):
        if hue < limit:
            return name
    return "pink"


def main_colours(picture: Image.Image) -> tuple[str, ...]:
    """Words for the hue that covers most of a picture's opaque part, possibly none."""
    pixels = np.asarray(picture.resize((32, 32)), dtype=np.float32) / 255  # (32, 32, 4)
    opaque = pixels[pixels[..., 3] > 0.5][:, :3]
    words = Counter(word(*(float(v) for v in colour)) for colour in opaque)
    if not words:
        return ()
    most, count = words.most_common(1)[0]
    if count < ENOUGH * len(opaque):
        return ()
    return (most, "red") if most == "orange" else (most,)  # a fox is orange; people say red


def recoloured(picture: Image.Image, colour: str) -> Image.Image:
    """An RGBA picture turned to another colour; its light and shade stay.

    The commonest hue becomes that of `colour`, and the others turn with it. Black and white take
    the colour out and move the values down or up.
    """
    rgb, alpha = picture.convert("RGB"), picture.getchannel("A")
    hsv = np.asarray(rgb.convert("HSV")).copy()  # (H, W, 3), uint8
    if colour in GREYS:
        value = hsv[..., 2].astype(np.float32)
        hsv[..., 1] = hsv[..., 1] // 12
        hsv[..., 2] = (value * 0.26 if colour == "black" else 150 + value * 0.41).astype(np.uint8)
    else:
        opaque = (np.asarray(alpha) > 128) & (hsv[..., 1] > 50) & (hsv[..., 2] > 60)
        counts = np.bincount(hsv[..., 0][opaque], minlength=256).astype(np.float32)
        near = sum((7 - abs(shift)) * np.roll(counts, shift) for shift in range(-6, 7))
        turn = HUES[colour] - int(np.argmax(near))
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + turn) % 256
    turned = Image.fromarray(hsv, "HSV").convert("RGB")
    turned.putalpha(alpha)
    return turned
