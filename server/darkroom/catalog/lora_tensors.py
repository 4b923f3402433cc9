"""What the tensors of a LoRA file are: of which layer, and of which kind of change of its weight.

kohya's names for LoRA are those of sd-scripts, the other kinds' those of LyCORIS, in which Kohya's,
OneTrainer's, ai-toolkit's and SimpleTuner's files have them too.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from darkroom.catalog.weight_files import UnusableAddonError

PEFT = "base_model.model."  # how peft's keys begin
BUNDLED = "bundle_emb."  # how keys of embeddings begin that kohya and OneTrainer put into LoRAs

# The end of a key. XLabs has two LoRAs on a layer, `…_lora1.down.weight` and `…_lora2.…`.
_KEY = re.compile(
    r"(?:(?:[._]lora(?:\.|_|_linear_layer\.)|(?<=_lora[12])\.)"
    r"(?P<side>down|up|mid|A|B)(?:\.default)?\.weight"
    r"|\.(?:hada_(?P<loha>w[12]_[ab]|t[12])|lokr_(?P<lokr>w[12](?:_[ab])?|t2)"
    r"|(?P<glora>[ab][12])\.weight"
    r"|(?P<plain>alpha|scalar|dora_scale|diff|diff_b|w_norm|b_norm|on_input|oft_blocks|rescale)"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.default)?(?:\.weight)?|(?P<weight>weight)"
    r"|(?P<peft>ia3_l)(?:\.default)?))\Z"
)
_KEY_CHARS = 48  # of a key's end that it can match

# The tensors that a kind has to have, by the names that `Layer.keys` gives them; and its name.
KINDS: Mapping[str, tuple[frozenset[str], ...]] = {
    "LoRA": (frozenset({"down", "up"}),),
    "LoHa": (frozenset({"loha_w1_a", "loha_w1_b", "loha_w2_a", "loha_w2_b"}),),
    "LoKr": tuple(
        frozenset(first | second)
        for first in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
        for second in ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"})
    ),
    "GLoRA": (frozenset({"glora_a1", "glora_a2", "glora_b1", "glora_b2"}),),
    "OFT": (frozenset({"oft_blocks"}),),
    "(IA)³": (frozenset({"weight", "on_input"}), frozenset({"ia3_l"})),
    "full difference": (frozenset({"diff"}),),
    "difference of a bias": (frozenset({"diff_b"}),),
    "trained norm": (frozenset({"w_norm"}),),
}
# What goes with a kind: it is nothing alone.
_BESIDE = {
    "mid": "LoRA",
    "loha_t1": "LoHa",
    "loha_t2": "LoHa",
    "lokr_t2": "LoKr",
    "rescale": "OFT",
    "b_norm": "trained norm",
}
DECOMPOSED = {"LoRA", "LoHa", "LoKr", "full difference"}  # the kinds of which there are DoRAs
_ANY = {"alpha", "scalar", "dora_scale", "magnitude"}

# What is in a key → what the file is instead.
FOREIGN = {
    re.compile(pattern): reason
    for pattern, reason in {
        r"\.boft_[Rs](?:\.|$)": "is a BOFT that was saved by peft, which is not read",
        r"\.oft_[Rrs](?:\.|$)": (
            "is an OFT that was saved by peft, which keeps in another file which way it turns; "
            "such files are not read"
        ),
        r"\.oft_diag$": "is an OFT of a kind that is not read",
        # Of FLUX some are published so, with strengths of 1.
        r"^base_model\.model\.(?!double_|single_|img_|txt_|time_|vector_|guidance_|final_)": (
            "was saved by peft, which keeps its strength in another file; save it with diffusers' "
            "save_lora_weights"
        ),
        r"first_stage_model\.": "is a whole checkpoint; it belongs among the models",
        r"emb_params|clip_g": "is a textual inversion; it belongs among the embeddings",
    }.items()
}


@dataclass
class Layer:
    """One layer of a file.

    Attributes:
        keys: of its tensors, by what they are: `down`, `loha_w1_a`, `alpha`, …. Not to be changed
            once a file is read: files with the same keys share their layers.
    """

    keys: dict[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of change that it has whole, names of `KINDS`."""
        return _kinds(frozenset(self.keys))

    @property
    def low_rank(self) -> bool:
        """Whether it is a LoRA and nothing else."""
        return self.keys.keys() <= {"down", "up", "mid", "alpha", "scalar"}

    def inputs(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """How many numbers its layer reads, where it is linear; None if no tensor shows it.

        Args:
            shapes: of the file's tensors, by key.
        """

        def width(name: str) -> int:
            shape = shapes[self.keys[name]]
            return shape[1] if len(shape) > 1 else 0

        for name in ("down", "loha_w1_b", "diff"):
            if name in self.keys:
                return width(name) or None
        if "glora_a2" in self.keys:  # (inputs, rank), or the other way round in later files
            return max(shapes[self.keys["glora_a2"]][:2], default=0) or None
        if "LoKr" in self.kinds:
            return math.prod(
                width(side if side in self.keys else f"{side}_b") for side in ("lokr_w1", "lokr_w2")
            )
        return None

    def numbers(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many numbers it keeps in memory; a LoHa is written out as a LoRA of rank r²."""
        if "LoHa" not in self.kinds:
            return sum(math.prod(shapes[key]) for key in self.keys.values())
        rank, columns = shapes[self.keys["loha_w1_b"]]
        out = math.prod(shapes[self.keys["loha_w1_a"]]) // max(1, rank)
        core = shapes[self.keys["loha_t1"]][2:] if "loha_t1" in self.keys else ()
        columns *= math.prod(core)
        return min(rank**2 * (out + columns), out * columns)

    def whole(self, name: str) -> None:
        """Raises `UnusableAddonError` if tensors are missing beside those that it has."""
        fault = _fault(frozenset(self.keys))
        if fault is not None:
            raise UnusableAddonError(fault.format(name))


@lru_cache(maxsize=256)  # a file has few sorts of layers, and thousands of each
def _kinds(names: frozenset[str]) -> tuple[str, ...]:
    """The kinds that a layer with tensors of these names has whole."""
    return tuple(kind for kind, sets in KINDS.items() if any(parts <= names for parts in sets))


@lru_cache(maxsize=256)
def _fault(names: frozenset[str]) -> str | None:
    """What is wrong with a layer of such tensors, with a gap for its name; None if nothing is."""
    kinds = _kinds(names)
    known = _ANY | {name for name, kind in _BESIDE.items() if kind in kinds}
    for kind in kinds:
        known |= {part for parts in KINDS[kind] for part in parts if parts <= names}
    if not kinds or names - known:
        return "is not whole: half of {} is missing"
    if {"dora_scale", "magnitude"} & names and not DECOMPOSED & set(kinds):
        return "is a DoRA of a kind that is not known, in {}"
    return None


def group_by_layer(keys: Iterable[str]) -> Mapping[str, Layer]:
    """Group the keys of a file by layer, in any of the naming schemes.

        kohya            lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight, ….alpha
        LyCORIS          lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a, ….lokr_w1, ….diff
        peft             unet.down_blocks.0.attentions.0.proj_in.lora_A.weight
        ai-toolkit       diffusion_model.layers.0.attention.to_q.lora_A.weight
        diffusers        unet.down_blocks.0.attentions.0.proj_in.lora.down.weight
        old diffusers    down_blocks.0.….attn1.processor.to_q_lora.down.weight

    A LoRA has a `down` of (rank, in, …) and an `up` of (out, rank, …), and changes its layer's
    weight by alpha / rank · up · down. `engine.change_reader` has the other kinds.

    Embeddings that are bundled with them are left out: see `bundled`.

    Raises:
        UnusableAddonError: a key is of something else, or half of a layer is missing.
    """
    return _grouped(tuple(keys))


# Most files of one trainer for one family have the same keys. Few are kept: a file may have many.
@lru_cache(maxsize=8)
def _grouped(keys: tuple[str, ...]) -> Mapping[str, Layer]:
    layers: dict[str, Layer] = {}
    known = {
        key: _KEY.search(key, max(1, len(key) - _KEY_CHARS))
        for key in keys
        if not key.startswith(BUNDLED)
    }
    vectors = {key.removesuffix(".on_input") for key in known if key.endswith(".on_input")}
    for key, match in known.items():  # else it is a layer of a model
        if match and match.lastgroup == "weight" and key[: match.start()] not in vectors:
            known[key] = None
    odd = [key for key, match in known.items() if not match or _lacks_strength(key, match)]
    for part, reason in FOREIGN.items():
        if any(part.search(key) for key in odd):
            raise UnusableAddonError(reason)
    for key, match in known.items():
        if match is None:
            raise UnusableAddonError(unknown(key))
        layers.setdefault(key[: match.start()], Layer()).keys[_role(match)] = key
    if not layers:
        raise UnusableAddonError("is empty")
    for name, layer in layers.items():
        layer.whole(name)
    return layers


def bundled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, ...]]:
    """The keys of the vectors of each embedding in a file, by its name; SDXL's pairs in order.

    They are below `bundle_emb.NAME.`: `emb_params`, `string_to_param.*` or one key of any name for
    an encoder, `clip_l` and `clip_g` for SDXL.

    Raises:
        UnusableAddonError: an embedding's vectors do not fit together.
    """
    names: dict[str, dict[str, str]] = {}
    for key in shapes:
        if key.startswith(BUNDLED):
            name, _, what = key.removeprefix(BUNDLED).partition(".")
            names.setdefault(name, {})[what] = key
    found = {}
    for name, held in names.items():
        pair = "clip_l" in held and "clip_g" in held
        keys = (held["clip_l"], held["clip_g"]) if pair else tuple(held.values())
        counts = {math.prod(shapes[key][:-1]) for key in keys}
        if len(counts) != 1 or 0 in counts or not all(shapes[key] for key in keys):
            raise UnusableAddonError(f"is damaged: vectors of its embedding {name} do not fit")
        if len(keys) == (2 if pair else 1):
            found[name] = keys
    return found


def _lacks_strength(key: str, match: re.Match[str]) -> bool:
    """Whether it is of a change that peft saved, which has a strength that is not in the file."""
    return key.startswith(PEFT) and not match["peft"]


def _role(match: re.Match[str]) -> str:
    group = match.lastgroup
    assert group is not None
    said: str = match[group]
    match group:
        case "side":
            return {"A": "down", "B": "up"}.get(said, said)
        case "loha" | "lokr" | "glora":
            return f"{group}_{said}"
        case "magnitude":
            return group
        case _:
            return said


def unknown(held: str) -> str:
    return (
        f"is no LoRA for Stable Diffusion or another family that takes them: it holds {held:.200}"
    )
