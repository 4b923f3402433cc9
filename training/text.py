"""The text encoder: a CLIP-format byte-pair tokenizer and a small CLIP text transformer.

The tokenizer is learnt from captions. The transformer learns alone, to say what the captioned
picture looks like, and is then left as it is: the noise predictor can draw what it says. Without
that, all captions look alike to an untrained UNet, which learns to ignore them.
"""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training import loop
from training.captions import Captions, Scene, article, single
from training.latents import BACKDROPS, Latents

WIDTH = 192
LAYERS = 6
MAX_TOKENS = 77  # CLIP's context, which every tool around diffusers expects
MERGES = 1400
CAPTIONS = 30_000  # to learn the merges from
STEPS, BATCH, ADAM_RATE, DECAY = 6_000, 128, 1.5e-3, 0.998
GRID = 8
MEASURED = 512  # captions in `quality`
END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Captions) -> CLIPTokenizer:
    """Learn the merges from captions.

    As in CLIP's own vocabulary, every byte is in it twice, bare and with the end-of-word suffix, so
    that no prompt in any script has an unknown token; the two markers come last.
    """
    rng = random.Random(0)
    _, corpus = captions.batch(rng, CAPTIONS)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    empty = CLIPTokenizer()  # for its normalizer and pre-tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix=END_OF_WORD))
    learner.normalizer = empty.backend_tokenizer.normalizer
    learner.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)

    learned = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    symbols = [*alphabet, *(byte + END_OF_WORD for byte in alphabet), *learned, START, END]
    vocab = {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def layout(latents: torch.Tensor) -> torch.Tensor:
    """What each padding position is taught to say.

    Args:
        latents: (N, 4, 16, 16), of unit variance.

    Returns:
        (N, 64, 22): for each cell of an 8×8 grid, row by row, its 2×2×4 latents, and cosines of
        where it lies, by which cross-attention can tell the cells apart.
    """
    cells = F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)  # (N, 64, 16)
    along = (torch.arange(GRID, device=latents.device) + 0.5) / GRID  # (8,)
    frequencies = torch.arange(1, 4, device=latents.device)
    waves = torch.cos(torch.pi * along[:, None] * frequencies)  # (8, 3)
    rows = waves[:, None].expand(GRID, GRID, 3)
    columns = waves[None, :].expand(GRID, GRID, 3)
    where = torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (64, 6)
    return torch.cat([cells, where.expand(len(cells), -1, -1)], dim=-1)


class Reader(nn.Module):
    """A linear map from what the text encoder says to a picture's layout; only training has it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 4 * 4 + 6)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, 77, WIDTH) to (B, 64, 22)."""
        said: torch.Tensor = self.head(states[:, -GRID * GRID :])
        return said

    @torch.no_grad()
    def fit(
        self,
        encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        said: list[str],
        latents: torch.Tensor,
    ) -> None:
        """Set to the map of the least squared error, which reads a trained encoder at once.

        Args:
            said: captions.
            latents: of their pictures, (N, 4, 16, 16), of unit variance.
        """
        states = _states(encoder, tokenizer, said)[:, -GRID * GRID :]
        inputs = F.pad(states.flatten(0, 1), (0, 1), value=1.0)  # (N·64, WIDTH + 1)
        targets = layout(latents).flatten(0, 1)
        damping = 1e-3 * len(inputs) * torch.eye(WIDTH + 1, device=inputs.device)
        solved = torch.linalg.solve(inputs.T @ inputs + damping, inputs.T @ targets)
        self.head.weight.copy_(solved[:-1].T)
        self.head.bias.copy_(solved[-1])


def train(
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    captions: Captions,
    latents: Latents,
    runs: Path,
    budget_s: float | None,
) -> Reader:
    """Teach the transformer what captions look like; leaves the averaged weights in `encoder`.

    A caption is short, and most of the 77 positions are padding that attends to it. The last 64 of
    them are taught to say, through a linear map that only training has, what the picture looks like
    in one cell each of an 8×8 grid. So the UNet finds in the text not only what to draw but, cell
    by cell, where.
    """
    torch.manual_seed(0)
    encoder.to(loop.device()).train().requires_grad_(True)
    reader = Reader().to(loop.device())
    checkpoint = runs / "text.pt"
    if not checkpoint.exists():
        scenes, said = captions.batch(random.Random(1), MEASURED)
        reader.fit(encoder, tokenizer, said, latents.of(scenes))

    def loss(step: int, _done: float) -> torch.Tensor:
        rng = random.Random(step)
        scenes, said = captions.batch(rng, BATCH)
        target = layout(latents.of(scenes))
        with loop.mixed_precision():
            predicted = reader(encoder(tokens(tokenizer, said)).last_hidden_state)
        return F.mse_loss(predicted.float(), target)

    modules = {"text_encoder": encoder, "head": reader}
    average = loop.train(
        name="text encoder",
        modules=modules,
        loss=loss,
        steps=STEPS,
        adam_rate=ADAM_RATE,
        checkpoint=checkpoint,
        decay=DECAY,
        budget_s=budget_s,
    )
    for name, module in modules.items():
        module.load_state_dict(average.weights[name])
        module.eval().requires_grad_(False)
    return reader


def tokens(tokenizer: CLIPTokenizer, said: list[str]) -> torch.Tensor:
    """Token ids of captions, (N, 77), on the device."""
    found = tokenizer(said, padding="max_length", truncation=True, return_tensors="pt")
    ids: torch.Tensor = found.input_ids.to(loop.device())
    return ids


@torch.no_grad()
def _states(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, said: list[str]) -> torch.Tensor:
    """What the transformer says of captions, (N, 77, WIDTH), float32."""
    parts = tokens(tokenizer, said).to(encoder.device).split(64)
    with loop.mixed_precision():
        return torch.cat([encoder(part).last_hidden_state for part in parts]).float()


def measured(captions: Captions) -> tuple[list[Scene], list[str]]:
    """Subjects by name on the ten backgrounds, always the same ones: scenes and captions."""
    rng = random.Random(5)
    chosen = [
        (rng.randrange(len(captions.subjects)), rng.choice(BACKDROPS)) for _ in range(MEASURED)
    ]
    said = [f"{article(captions.subjects[n].name)} on {article(b)} background" for n, b in chosen]
    return [single(n, b) for n, b in chosen], said


@torch.no_grad()
def quality(
    encoder: CLIPTextModel,
    reader: Reader,
    tokenizer: CLIPTokenizer,
    said: list[str],
    latents: torch.Tensor,
) -> float:
    """The share of the layouts' variance that the text explains (R²), 1 at best.

    Args:
        said: captions.
        latents: of their pictures, (N, 4, 16, 16), of unit variance.
    """
    target = layout(latents)[..., :16]
    predicted = reader(_states(encoder, tokenizer, said))[..., :16]
    return 1 - float((target - predicted).square().mean() / target.var())
