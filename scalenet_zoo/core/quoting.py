"""Text from files made safe to show: on one line, and without control characters that a terminal would obey."""

import reprlib
import unicodedata

from scalenet_zoo.core.bounds import QUOTED_CHARACTERS

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""The Unicode categories of characters that control or format: ESC, newlines, marks of direction."""
_JOINERS = "\u200c\u200d"
"""Format characters that emoji, and words of some scripts, contain."""


def printable(text: str) -> str:
    r"""Show control characters as Python writes them: a newline becomes \n, ESC becomes \x1b."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _escaped(character) for character in text)


def quoted(value: object, characters: int = QUOTED_CHARACTERS) -> str:
    """Write a value as Python does: printable, in at most `characters`; a longer text loses its middle."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = characters
    return elide(printable(brief.repr(value)), characters)


def elide(text: str, characters: int) -> str:
    """Shorten a text to at most `characters`: a longer one keeps its beginning and its end."""
    if len(text) <= characters:
        return text
    end = (characters - 3) // 2
    return f"{text[: characters - 3 - end]}...{text[len(text) - end :]}"


def _is_shown(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _HIDDEN


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
