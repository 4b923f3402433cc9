"""The tokens of a prompt, and the words that they are parts of."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from darkroom.responses import ExplainedToken, ExplainedWord, TokenKind

MAX_TOKENS = 512  # that have maps
# Chinese and Japanese are written without spaces: there a character is a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_OWN = "\U000f0000-\U000ffffd"  # stand for textual inversions, see `embeddings`
_WORD = re.compile(
    rf"[{_UNSPACED}]|[{_OWN}](?: [{_OWN}])*|[^\W{_UNSPACED}]+(?:['’\-][^\W{_UNSPACED}]+)*"
)

Span = tuple[int, int]  # beginning and end in a text


@dataclass(frozen=True)
class WordSpans:
    """The words of a text: where they are, and their numbers in a reading."""

    spans: Sequence[Span]
    first: int

    def at(self, start: int, end: int) -> int | None:
        """The number of the first word that a part of the text has something of."""
        for number, (word_start, word_end) in enumerate(self.spans, self.first):
            if start < word_end and word_start < end:
                return number
        return None


class Reading:
    """How a network is given a prompt, one position after the other.

    Attributes:
        tokens: those that have maps, the first `MAX_TOKENS`.
        positions: where each of them is.
        padding: positions without a token.
        length: how many positions there are.
    """

    def __init__(self) -> None:
        self.tokens: list[ExplainedToken] = []
        self.positions: list[int] = []
        self.padding: list[int] = []
        self.length = 0
        self._texts: list[str] = []  # of all words

    def words_of(self, text: str, name: Callable[[str], str] = str) -> WordSpans:
        """Number the words of a part of the prompt; `name` says what people call one."""
        spans = [found.span() for found in _WORD.finditer(text)]
        words = WordSpans(spans, len(self._texts))
        self._texts += [name(text[start:end]) for start, end in spans]
        return words

    def read(
        self, text: str, spans: Iterable[Span], words: WordSpans, name: Callable[[str], str] = str
    ) -> None:
        """The tokens of a part of the prompt, by where they are in it."""
        for start, end in spans:
            self._add(name(text[start:end].strip()), TokenKind.TEXT, words.at(start, end))

    def mark(self, text: str, kind: TokenKind) -> None:
        """A token that is not of the prompt."""
        self._add(text.strip(), kind, None)

    def pad(self, count: int = 1) -> None:
        """Positions that hold padding."""
        self.padding += range(self.length, self.length + count)
        self.length += count

    @property
    def words(self) -> tuple[ExplainedWord, ...]:
        """The words that have tokens. Each token's `word` is a number among `_texts`."""
        return tuple(
            ExplainedWord(text=self._texts[word], tokens=tuple(tokens))
            for word, tokens in self._spelt().items()
        )

    def shown(self) -> tuple[ExplainedToken, ...]:
        """The tokens as they are told, and one for all padding at the end, if there is any."""
        numbers = {word: number for number, word in enumerate(self._spelt())}
        tokens = [
            token if token.word is None else token.model_copy(update={"word": numbers[token.word]})
            for token in self.tokens
        ]
        if self.padding:
            tokens.append(ExplainedToken(text="", kind=TokenKind.PADDING))
        return tuple(tokens)

    def _spelt(self) -> dict[int, list[int]]:
        """The tokens of each word that has some, in the words' order."""
        found: dict[int, list[int]] = {}
        for index, token in enumerate(self.tokens):
            if token.word is not None:
                found.setdefault(token.word, []).append(index)
        return dict(sorted(found.items()))

    def _add(self, text: str, kind: TokenKind, word: int | None) -> None:
        if len(self.tokens) < MAX_TOKENS:
            self.tokens.append(ExplainedToken(text=text, kind=kind, word=word))
            self.positions.append(self.length)
        self.length += 1
