"""Converts arriving tokens to pieces of text: thought and answer, without incomplete characters and stop texts.

This module knows a tokenizer and no models.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cna_core.prompts.thinking import Part, Parts, Thinking, ThoughtMarkers, ThoughtReader, begun_length

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of a growing list of tokens, piece by piece.

    A token's text depends on the token before it (spaces) and after it (characters of several bytes). So each piece is
    the text by which a short window has grown; it is held back while it ends inside a character.

    Args:
        tokenizer: the tokens' tokenizer.
        shown: special tokens whose text is kept; the text of all others is left out.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", shown: frozenset[int] = frozenset()) -> None:
        self.tokenizer = tokenizer
        self._left_out = _special_tokens(tokenizer) - shown if shown else frozenset()
        self.tokens: list[int] = []
        self._window = 0  # first token of the window, which is decoded again
        self._given = 0  # tokens whose text was returned

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        self.tokens.append(token)
        piece = self._gained()
        if not piece or piece.endswith(_HALF_CHARACTER):
            return ""
        self._window, self._given = self._given, len(self.tokens)
        return piece

    def finish(self) -> str:
        """The text that was held back, without an incomplete character at its end."""
        piece = self._gained().rstrip(_HALF_CHARACTER)
        self._window = self._given = len(self.tokens)
        return piece

    def _gained(self) -> str:
        known = self._decode(self.tokens[self._window : self._given])
        return self._decode(self.tokens[self._window :])[len(known) :]

    def _decode(self, tokens: list[int]) -> str:
        kept = [token for token in tokens if token not in self._left_out]
        skips = not self._left_out
        return str(self.tokenizer.decode(kept, skip_special_tokens=skips, clean_up_tokenization_spaces=False))


class AnswerStream:
    """The text of a growing list of generated tokens, split into thought and answer.

    Args:
        tokenizer: the tokens' tokenizer.
        thinking: how the text is split; None: all of it is the answer.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", thinking: Thinking | None = None) -> None:
        self._reader = None if thinking is None else ThoughtReader(thinking)
        shown = frozenset[int]() if thinking is None else _special_markers(tokenizer, thinking.markers)
        self._text = TextStream(tokenizer, shown)

    @property
    def part(self) -> Part:
        """The part to which the next token belongs."""
        return "answer" if self._reader is None else self._reader.part

    @property
    def in_thought(self) -> bool:
        """Whether a thought has begun and not ended."""
        return self._reader is not None and self._reader.is_open

    @property
    def thought_tokens(self) -> int:
        """The number of tokens so far that belong to the thought or its markers."""
        return 0 if self._reader is None else self._reader.thought_pieces

    def add(self, token: int) -> Parts:
        """The text that this token completes."""
        text = self._text.add(token)
        return Parts("", text) if self._reader is None else self._reader.add(text)

    def finish(self) -> Parts:
        """The text that was held back."""
        text = self._text.finish()
        return Parts("", text) if self._reader is None else self._reader.finish(text)


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    return frozenset(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)


def _special_markers(tokenizer: "PreTrainedTokenizerBase", markers: ThoughtMarkers) -> frozenset[int]:
    """The special tokens of which the markers are made."""
    texts = "\n".join((*markers.opens, markers.closes, *markers.within))
    added = tokenizer.added_tokens_decoder
    return frozenset(token for token in _special_tokens(tokenizer) if added[token].content in texts)


class StopTexts:
    """Ends a text before the first stop text: pieces are returned as soon as they cannot be part of one.

    Args:
        stops: non-empty strings; without any, every piece is returned at once.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = tuple(stops)
        self.found = False
        self._held = ""

    def add(self, piece: str) -> str:
        """The text that can be shown; once a stop is `found`, the last text before it."""
        text, self._held = self._held + piece, ""
        places = [place for place in (text.find(stop) for stop in self.stops) if place >= 0]
        if places:
            self.found = True
            return text[: min(places)]
        shown = len(text) - begun_length(text, self.stops)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """The text that was held back."""
        text, self._held = self._held, ""
        return text
