r"""Plain SQL that psql is going to run: nothing in it may be a command to psql itself.

psql takes a backslash for a command of its own (`\!` runs a shell) wherever its lexer is outside quotes and comments,
in the middle of a line, too. So the text is read here as psql reads it (`psqlscan.l`, PostgreSQL 14 to 18): line feeds
end nothing but a `--` comment, which a carriage return ends as well; a COPY's rows begin behind its line and end at a
line `\.`. What psql and the server, or two versions of psql, would read differently is refused.

What no reader can see is SQL that changes how psql reads by a name that it computes (`set_config('client_' || ...)`);
whoever must run SQL of strangers puts a `\restrict` line of their own before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from opsproof.archive.paths import KEPT, shown
from opsproof.archive.reading.sqlstatement import MOST_TEXT, Statement, refuse
from opsproof.errors import ArchiveError
from opsproof.system.postgres.copytext import FOOTER

# What begins so near the end of what was read may go on in the next piece.
AHEAD = 128
# No word is that long, but the digits of a number may be many.
MOST_LINE, MOST_TOKEN = 1 << 12, 1 << 18
LINE_FEED = 0x0A
COPY_END = b"\n\\."
E_STRING = re.compile(rb"[\\']")
COMMENT_MARK = re.compile(rb"/\*|\*/")
LINE_END = re.compile(rb"[\r\n]")
RESTRICT = re.compile(rb"\\(un)?restrict ([A-Za-z0-9]{1,256})\r?(?:\n|\Z)")
TOKEN = re.compile(
    rb"(?P<estring>[eE]')"
    rb"|(?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)"
    # Versions of psql differ on where a number or a parameter ends that runs into something else.
    rb"|(?P<ambiguous>[0-9][0-9A-Za-z_.\x80-\xff]*['$]|\$[0-9]+['$A-Za-z_\x80-\xff])"
    rb"|(?P<number>[0-9][0-9A-Za-z_.\x80-\xff]*|\$[0-9]+|::)"
    rb"|(?P<variable>:['\"]?(?:DBNAME|HOST|USER|ENCODING|VERSION|SERVER_VERSION_NAME|LAST_ERROR_MESSAGE|PROMPT[123])\b)"
    rb"|(?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$?)"
    rb"|(?P<comment>--|/\*)"
    rb"|(?P<mark>['\";()\\])"
)


def check_plain_sql(chunks: Iterable[bytes]) -> None:
    """Read plain SQL to its end; memory stays bounded.

    Raises:
        ArchiveError: It is empty, is not a whole dump, or holds what psql would take for a command of its own.
    """
    for _ in checked_plain_sql(chunks):
        pass


def checked_plain_sql(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass plain SQL on while it is checked: it was all right only if the end is reached without an error.

    Raises:
        ArchiveError: As `check_plain_sql`.
    """
    reader = _Reader()
    for chunk in chunks:
        reader.feed(chunk)
        yield chunk
    reader.finish()


_State = Callable[[bytes, int], int]


class _Reader:
    """Follows psql's lexer through a text that comes in pieces.

    Each state takes the text and a place in it, reads on, and returns how far it came; if that is no further and the
    state is still the same, it needs more text.
    """

    def __init__(self) -> None:
        self._state: _State = self._outside
        self._text = b""
        self._is_empty = True
        self._is_last = False
        self._before = LINE_FEED
        self._statement = Statement()
        self._comments = 0
        self._quote, self._literal = b"", b""
        self._tag = b""
        self._follows_literal = False
        self._key: bytes | None = None
        self._is_restricted = False
        self._footer_seen = False

    def feed(self, data: bytes) -> None:
        if not data:
            return
        self._is_empty = False
        if b"\0" in data:
            raise refuse("text", "a NUL, which no dump holds")
        self._text += data
        self._run()

    def finish(self) -> None:
        if self._is_empty:
            raise ArchiveError(
                "The SQL file is empty",
                expected="a dump",
                found="0 bytes",
                kept=KEPT,
                hint="click-odoo writes that when pg_dump fails: look for an older backup",
            )
        self._is_last = True
        self._run()
        if self._state != self._outside or not self._statement.is_empty:
            raise _cut("the end of what it begins", "the end of the file inside a statement, a text or a table's rows")
        if not self._footer_seen:
            raise _cut(f"a line {FOOTER.decode()!r} at its end", "none")
        if self._is_restricted:
            raise _cut(r"a line \unrestrict with the key of \restrict", "none")

    def _run(self) -> None:
        at, text = 0, self._text
        while at < len(text):
            state = self._state
            came = state(text, at)
            if came > at:
                self._before = text[came - 1]
            elif self._state == state:
                break
            at = came
        self._text = text[at:]

    def _outside(self, text: bytes, at: int) -> int:
        """Read tokens, up to the first that is the beginning of something longer."""
        limit = len(text) if self._is_last else max(at, len(text) - AHEAD)
        outside = self._state
        while at < limit:
            found = TOKEN.search(text, at)
            start = min(limit, found.start()) if found else limit
            if start > at:
                self._skip(text, at, start)
                at = start
            if found is None or at == limit:
                break
            kind, end = found.lastgroup, found.end()
            if end - at > MOST_TOKEN:
                raise refuse("words", f"one of more than {MOST_TOKEN:,} bytes")
            if end == len(text) and not self._is_last and kind != "mark":
                break
            if kind == "word":
                self._footer_seen = self._follows_literal = False
                self._statement.add_word(found[0])
                came = end
            else:
                came = self._token(kind or "", text, at, end)
            if came == at:
                break
            self._before, at = text[came - 1], came
            if self._state != outside:
                break
        return at

    def _skip(self, text: bytes, at: int, end: int) -> None:
        self._before = text[end - 1]
        if not text[at:end].isspace():
            self._footer_seen = self._follows_literal = False
            self._statement.add_other()

    def _token(self, kind: str, text: bytes, at: int, end: int) -> int:
        token = text[at:end]
        if kind == "comment":
            return self._begin_comment(text, at)
        if token == b"\\":
            return self._restrict(text, at)
        if kind in ("ambiguous", "variable"):
            raise refuse("SQL that can be read in one way only", shown(repr(token)))
        if token == b"'" and self._follows_literal:
            raise refuse("literals that end where they end", "one that goes on in another pair of quotes")
        self._footer_seen = self._follows_literal = False
        if kind == "dollar":
            return self._begin_dollar(token, at)
        match token:
            case b";":
                return self._end_statement(text, at)
            case b"(":
                self._statement.open_parenthesis()
            case b")":
                self._statement.close_parenthesis()
            case b"'":
                self._begin_text(b"'", self._in_text)
            case b'"':
                self._begin_text(b'"', self._in_name)
            case b"E'" | b"e'":
                self._begin_text(b"E'", self._in_e_text)
            case _:
                self._statement.add_other()
        return end

    def _end_statement(self, text: bytes, at: int) -> int:
        if not self._statement.end():
            return at + 1
        if not text.startswith((b"\n", b"\r\n"), at + 1):
            raise refuse("a line feed behind COPY ... FROM stdin;", shown(repr(text[at + 1 : at + 9])))
        self._state = self._in_rows
        # The line feed is what a row, or the end of none, comes after.
        return text.index(b"\n", at)

    def _in_rows(self, text: bytes, at: int) -> int:
        while (end := text.find(COPY_END, at)) >= 0:
            if text.startswith((b"\n", b"\r\n"), end + 3):
                self._state = self._outside
                return text.index(b"\n", end + 3) + 1
            if len(text) - end < 5:
                return end
            at = end + 3
        return max(at, len(text) - 4)

    def _restrict(self, text: bytes, at: int) -> int:
        """Read the line that pg_dump writes to keep psql from taking commands."""
        if self._before != LINE_FEED:
            raise refuse("no commands to psql", f"a backslash outside quotes: {shown(repr(text[at : at + 40]))}")
        if b"\n" not in text[at:] and len(text) - at < MOST_LINE and not self._is_last:
            return at
        found = RESTRICT.match(text, at)
        is_end = bool(found and found[1])
        is_pair = found and self._statement.is_empty and (found[2] == self._key if is_end else self._key is None)
        if found is None or not is_pair or is_end != self._is_restricted:
            raise refuse(
                r"no commands to psql but one pair \restrict KEY, \unrestrict KEY", shown(repr(text[at : at + 40]))
            )
        self._key, self._is_restricted = found[2], not is_end
        return found.end()

    def _begin_comment(self, text: bytes, at: int) -> int:
        if text[at : at + 2] == b"/*":
            self._comments, self._state = 1, self._in_comment
            return at + 2
        found = LINE_END.search(text, at)
        if found is None and not self._is_last:
            if len(text) - at < MOST_LINE:
                return at
            self._state = self._in_line_comment
            return at + 2
        end = found.start() if found else len(text)
        if self._before == LINE_FEED and text[at:end] == FOOTER and self._statement.is_empty:
            self._footer_seen = True
        return end

    def _in_line_comment(self, text: bytes, at: int) -> int:
        found = LINE_END.search(text, at)
        if found is None:
            return len(text)
        self._state = self._outside
        return found.end()

    def _in_comment(self, text: bytes, at: int) -> int:
        while found := COMMENT_MARK.search(text, at):
            at = found.end()
            self._comments += 1 if found[0] == b"/*" else -1
            if not self._comments:
                self._state = self._outside
                return at
        return max(at, len(text) - 1)

    def _begin_text(self, quote: bytes, state: _State) -> None:
        self._quote, self._literal, self._state = quote, b"", state

    def _keep(self, text: bytes, at: int, end: int) -> None:
        if len(self._literal) < MOST_TEXT:
            self._literal += text[at : min(end, at + MOST_TEXT)]

    def _end_text(self) -> None:
        self._statement.add_text(self._quote, self._literal)
        self._follows_literal = self._quote != b'"'
        self._state = self._outside

    def _in_text(self, text: bytes, at: int) -> int:
        while (end := text.find(b"'", at)) >= 0:
            self._keep(text, at, end)
            if end + 1 == len(text) and not self._is_last:
                return end
            if text[end + 1 : end + 2] != b"'":
                self._end_text()
                return end + 1
            at = end + 2
        self._keep(text, at, len(text))
        return len(text)

    def _in_e_text(self, text: bytes, at: int) -> int:
        while found := E_STRING.search(text, at):
            end = found.start()
            self._keep(text, at, end)
            if end + 1 == len(text) and not self._is_last:
                return end
            if found[0] == b"'" and text[end + 1 : end + 2] != b"'":
                self._end_text()
                return end + 1
            at = min(end + 2, len(text))
        return len(text)

    def _in_name(self, text: bytes, at: int) -> int:
        end = text.find(b'"', at)
        self._keep(text, at, end if end >= 0 else len(text))
        if end < 0:
            return len(text)
        self._end_text()
        return end + 1

    def _begin_dollar(self, tag: bytes, at: int) -> int:
        if len(tag) == 1 or not tag.endswith(b"$"):
            self._statement.add_other()
            return at + 1
        self._tag, self._state = tag, self._in_dollar
        return at + len(tag)

    def _in_dollar(self, text: bytes, at: int) -> int:
        end = text.find(self._tag, at)
        if end < 0:
            return max(at, len(text) - len(self._tag) + 1)
        self._statement.add_text(b"$", text[at : min(end, at + MOST_TEXT)])
        self._state = self._outside
        return end + len(self._tag)


def _cut(expected: str, found: str) -> ArchiveError:
    hint = "download it again; if it stays so, choose another backup: psql would load a part and say that all is well"
    return ArchiveError("The SQL is not a whole dump", expected=expected, found=found, kept=KEPT, hint=hint)
