"""Tokens to text while they arrive: pieces that join to the whole text and never show half a character or stop text.

Knows a tokenizer; knows nothing of models.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of a growing list of tokens, piece by piece.

    A tokenizer's text for one token depends on the token before (spaces) and on the next (characters of several bytes).
    So each piece is what the text of a short window gained, held back while it ends in the middle of a character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self._window = 0  # first token of the window that is decoded anew
        self._given = 0  # tokens whose text was given out

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        self.tokens.append(token)
        piece = self._gained()
        if not piece or piece.endswith(_HALF_CHARACTER):
            return ""
        self._window, self._given = self._given, len(self.tokens)
        return piece

    def finish(self) -> str:
        """The text still held back, without an unfinished character at its end."""
        piece = self._gained().rstrip(_HALF_CHARACTER)
        self._window = self._given = len(self.tokens)
        return piece

    def _gained(self) -> str:
        known = self._decode(self.tokens[self._window : self._given])
        return self._decode(self.tokens[self._window :])[len(known) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StopTexts:
    """Ends a text before the first of some strings: pieces go in, and come out as soon as they cannot begin one.

    Args:
        stops: strings, none empty; without any, every piece comes out at once.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = tuple(stops)
        self.found = False
        self._held = ""

    def add(self, piece: str) -> str:
        """What may be shown; once a stop is `found`, the last text before it."""
        text, self._held = self._held + piece, ""
        places = [place for place in (text.find(stop) for stop in self.stops) if place >= 0]
        if places:
            self.found = True
            return text[: min(places)]
        shown = len(text) - self._begun(text)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """The text still held back."""
        text, self._held = self._held, ""
        return text

    def _begun(self, text: str) -> int:
        """The length of the longest end of the text that begins a stop."""
        longest = max((len(stop) for stop in self.stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stops):
                return length
        return 0
