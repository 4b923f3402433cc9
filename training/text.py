"""The text encoder: a CLIP-format byte-pair tokenizer and a small CLIP text transformer.

The tokenizer is learnt from captions. The transformer first learns alone, to say what the captioned
picture roughly looks like, and then on with the noise predictor. Without the first part all
captions look alike to an untrained UNet, which learns to ignore them and for a thousand steps does.
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
from training.data import BACKGROUNDS, Subject, caption, draw

WIDTH = 192
LAYERS = 3
MAX_TOKENS = 77  # CLIP's context, which every tool around diffusers expects
MERGES = 1400
CAPTIONS_PER_SUBJECT = 60
STEPS, BATCH, PEAK_LR = 1300, 64, 1e-3  # of the transformer's first part
GRID = 8
END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(subjects: tuple[Subject, ...]) -> CLIPTokenizer:
    """Learn the merges from captions.

    As in CLIP's own vocabulary, every byte stands in it twice, bare and with the end-of-word
    suffix, so that no prompt in any script has an unknown token; the two markers come last.
    """
    rng = random.Random(0)
    backgrounds = list(BACKGROUNDS)
    corpus = [
        caption(subject, rng.choice(backgrounds), rng)
        for subject in subjects
        for _ in range(CAPTIONS_PER_SUBJECT)
    ]
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
    along = (torch.arange(GRID) + 0.5) / GRID  # (8,)
    waves = torch.cos(torch.pi * along[:, None] * torch.arange(1, 4))  # (8, 3)
    rows = waves[:, None].expand(GRID, GRID, 3)
    columns = waves[None, :].expand(GRID, GRID, 3)
    where = torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (64, 6)
    return torch.cat([cells, where.expand(len(cells), -1, -1)], dim=-1)


def train(
    subjects: tuple[Subject, ...],
    latents: torch.Tensor,
    tokenizer: CLIPTokenizer,
    checkpoint: Path,
) -> CLIPTextModel:
    """Teach the transformer what captions look like.

    A caption is short, and most of the 77 positions are padding that attends to it. The last 64
    of them are taught to say, through a linear map that is thrown away afterwards, what the
    picture looks like in one cell each of an 8×8 grid. So the UNet finds in the text not only
    what to draw but, cell by cell, where.

    Args:
        subjects: to caption.
        latents: (subjects, backgrounds, 4, 16, 16), of unit variance.
        tokenizer: of the model.
        checkpoint: file to stop and resume at.
    """
    torch.manual_seed(0)
    device = loop.device()
    targets = layout(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
    encoder = build(tokenizer).to(device)
    head = nn.Linear(WIDTH, targets.shape[-1]).to(device)

    def loss(step: int) -> torch.Tensor:
        rng = random.Random(step)
        which, where, captions = draw(subjects, BATCH, rng)
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        with loop.mixed_precision():
            states = encoder(tokens.input_ids.to(device)).last_hidden_state  # (B, 77, WIDTH)
            predicted = head(states[:, -GRID * GRID :])  # (B, 64, 22)
        return F.mse_loss(predicted.float(), targets[which, where].to(device))

    average = loop.train(
        name="text encoder",
        modules={"text_encoder": encoder, "head": head},
        loss=loss,
        steps=STEPS,
        peak_lr=PEAK_LR,
        checkpoint=checkpoint,
        decay=0.99,
    )
    encoder.load_state_dict(average.weights["text_encoder"])
    return encoder


def load_or_train(subjects: tuple[Subject, ...], folder: Path) -> CLIPTokenizer:
    if not folder.exists():
        train_tokenizer(subjects).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)
