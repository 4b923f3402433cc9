"""The text encoder: a CLIP-format byte-pair tokenizer and a small CLIP text transformer.

Both are trained on the captions; the transformer learns together with the noise predictor.
"""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.data import BACKGROUNDS, Subject, caption

WIDTH = 192
LAYERS = 3
MAX_TOKENS = 77  # CLIP's context, which every tool around diffusers expects
MERGES = 1400
CAPTIONS_PER_SUBJECT = 60
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


def load_or_train(subjects: tuple[Subject, ...], folder: Path) -> CLIPTokenizer:
    if not folder.exists():
        train_tokenizer(subjects).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)
