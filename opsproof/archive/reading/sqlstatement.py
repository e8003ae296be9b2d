"""One statement of plain SQL, told token by token: where it ends, and whether rows follow it.

Where it ends is psql's own rule (`psqlscan.l`): at a semicolon outside parentheses, and outside the BEGIN ... END of a
function whose body is SQL.
"""

from __future__ import annotations

from itertools import pairwise

from opsproof.archive.paths import KEPT, shown
from opsproof.errors import ArchiveError

HINT = "do not run it; if it is a backup of yours, take another one, best a .dump: psql runs what stands in SQL"
MOST_TOKENS = 24
MOST_TEXT = 64
NO_HEAD = b"\0" * 4
_TO_CLIENT = frozenset({(b"from", b"stdin"), (b"from", b"stdout")})
_IN_FUNCTION_HEADS = frozenset({b"create", b"function", b"procedure", b"or", b"replace"})
_READS_ARE_CHANGED_BY = frozenset({b"client_encoding", b"names", b"standard_conforming_strings"})
# In these, a byte that looks like a quote or a backslash may be the second half of a letter.
_UNSAFE_ENCODINGS = frozenset(
    b"sjis shiftjis shiftjis2004 mskanji win932 windows932 big5 win950 windows950 gbk win936 windows936"
    b" uhc win949 windows949 gb18030 johab"
    # Whatever psql's surroundings say.
    b" default".split()
)
# A text in these is only a text.
_SAYS_NOTHING = frozenset({b"alter", b"comment", b"copy", b"create", b"insert", b"security", b"set"})


class Statement:
    """What is known of the statement that is being read. A literal is kept with its quote before it."""

    def __init__(self) -> None:
        self._tokens: list[bytes] = []
        self._begun = False
        self._words = self._parentheses = self._blocks = 0
        self._head = NO_HEAD

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing of a statement has come yet."""
        return not self._begun

    def add_word(self, word: bytes) -> None:
        """Take a word outside quotes."""
        self._begun = True
        low = word.lower()
        if self._words < 4 and low in _IN_FUNCTION_HEADS:
            self._head = self._head[: self._words] + low[:1] + self._head[self._words + 1 :]
        self._words += 1
        if self._parentheses:
            return
        if len(self._tokens) < MOST_TOKENS:
            self._tokens.append(low)
        if low in (b"begin", b"case", b"end") and self._is_function():
            if low == b"begin" or (low == b"case" and self._blocks):
                self._blocks += 1
            elif low == b"end" and self._blocks:
                self._blocks -= 1

    def add_text(self, quote: bytes, text: bytes) -> None:
        """Take a literal (`'`, `E'`, `$`) or a name in quotes (`"`), of which the beginning is enough."""
        self._begun = True
        first = self._tokens[0] if self._tokens else b""
        if quote != b'"' and first not in _SAYS_NOTHING and text.strip().lower() in _READS_ARE_CHANGED_BY:
            raise refuse("settings that leave psql's reading as it is", shown(repr(text)))
        if not self._parentheses and len(self._tokens) < MOST_TOKENS:
            self._tokens.append(quote + text)

    def add_other(self) -> None:
        """Take anything else that is no blank."""
        if not self._begun:
            self._tokens.append(b"?")  # whatever follows, it does not begin the statement
        self._begun = True

    def open_parenthesis(self) -> None:
        """Take a parenthesis."""
        self.add_other()
        self._parentheses += 1

    def close_parenthesis(self) -> None:
        """Take its end."""
        self.add_other()
        self._parentheses = max(0, self._parentheses - 1)

    def end(self) -> bool:
        """Take a semicolon; tell whether rows of a COPY follow in the next line.

        Raises:
            ArchiveError: The statement reads or writes a file or a program, or changes how psql reads.
        """
        if self._parentheses or self._blocks:
            return False
        tokens, self._tokens = self._tokens, []
        self._begun, self._words, self._head = False, 0, NO_HEAD
        if tokens[:1] == [b"copy"]:
            return _has_rows(tokens)
        if b"copy" in tokens and any(pair in _TO_CLIENT for pair in pairwise(tokens)):
            # The server will refuse it, and versions of psql differ on what becomes of the lines behind it.
            raise refuse("COPY as a statement of its own", shown(repr(b" ".join(tokens))))
        if tokens[:1] in ([b"set"], [b"reset"], [b"discard"]):
            _require_harmless(tokens)
        return False

    def _is_function(self) -> bool:
        head = self._head
        return head[:1] == b"c" and (head[1:2] in (b"f", b"p") or (head[1:3] == b"or" and head[3:4] in (b"f", b"p")))


def refuse(expected: str, found: str) -> ArchiveError:
    """Say that psql is not to be given this."""
    return ArchiveError(
        "The SQL holds what psql must not be given", expected=expected, found=found, kept=KEPT, hint=HINT
    )


def _has_rows(tokens: list[bytes]) -> bool:
    at = next((n for n, token in enumerate(tokens) if token in (b"from", b"to")), len(tokens))
    if tokens[at + 1 : at + 2] not in ([b"stdin"], [b"stdout"]):
        words = b" ".join(tokens[: at + 3])
        raise refuse("COPY from the dump itself: FROM stdin", shown(repr(words)))
    return tokens[at] == b"from"


def _require_harmless(tokens: list[bytes]) -> None:
    words = [token.lstrip(b'"').lower() for token in tokens if token not in (b"session", b"local", b"to")]
    name, value = [*words, b"", b""][1:3]
    if tokens[0] == b"set":
        plain = bytes(letter for letter in value.lstrip(b"'") if chr(letter).isalnum())
        if name == b"standard_conforming_strings":
            is_harmless = plain == b"on"
        else:
            is_harmless = name not in _READS_ARE_CHANGED_BY or (
                value[:2] != b"e'" and value[:1] != b"$" and bool(plain) and plain not in _UNSAFE_ENCODINGS
            )
    else:
        is_harmless = name not in (*_READS_ARE_CHANGED_BY, b"all")
    if not is_harmless:
        raise refuse("settings that leave psql's reading as it is", shown(repr(b" ".join(tokens))))
