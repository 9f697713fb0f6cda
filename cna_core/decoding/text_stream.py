"""Converts arriving tokens to pieces of text, without incomplete characters and stop texts.

This module knows a tokenizer and no models.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cna_core.prompts.thinking import begun_length

_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of a growing list of tokens, piece by piece.

    A token's text depends on the token before it (spaces) and after it (characters of several bytes). So each piece is
    the text by which a short window has grown; it is held back while it ends inside a character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
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
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


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
