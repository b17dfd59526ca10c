"""Error messages say what was found and what was expected; they, docstrings, help and docs are in plain English."""

import re
from functools import cache

import pytest

from tests.helpers.messages import HOLE, PARTS, USAGE_ERRORS, Message, messages, prose

CHARACTERS = 200
"""At most, of the constant part of a message."""

SUBJECT = re.compile(r"(?:\{\}|[\w`'-])[^:]*: ?")
"""What a message is about: a file, a field, a flag, or a phrase of a few words, before the first colon."""
SUBJECT_CHARACTERS = 60
VERB = re.compile(r"\b(found|expected|cannot)\b")

FORMS = {
    "what was found, then what was expected": re.compile(r"\b(found|is|are|takes|has|would be)\b.*\bexpected\b"),
    "what was found is another error's text": re.compile(r"(^|: |\} )\{\}[^:]*,? expected\b"),
    "what is not valid, then the reason": re.compile(r"\bfound [^:]*\b(not valid|invalid)\b[^{]*: \{\}"),
    "what was expected, then the reason": re.compile(r"\bexpected\b[^:]*: \{\}"),
    "what failed, then the reason, as the system or a library tells": re.compile(
        r"\b(cannot|could not|does not fit|do not fit|is damaged|is stale|fails|failed)\b[^:(]*(: |\()\S"
    ),
    "nothing is within the limits that are named": re.compile(
        r"\bfound no(ne of)?\b.* (that|with|between|within|in|to run)\b"
    ),
    "a field in front of another error's text": re.compile(r"^(?!.*\b(found|is|are|cannot)\b)([^:]{1,40}: )+\{\}$"),
    "a field or file that lacks something, or is too deep": re.compile(r": is (missing|nested too deeply to be read)$"),
    "another error's text with a remedy": re.compile(r"^\{\}(: \{\})?[;,] \S"),
}
"""The forms that a message may have, one of them at least."""

PART_FORMS = {
    **FORMS,
    "what was expected; the reader of the field puts in front what was found": re.compile(r"^expected\b"),
    "a file's state, after its name": re.compile(r"^(\{\}: )?is (nested too deeply|missing|damaged|not|a )"),
}

_THINGS = (
    "joint|stage|scaling stage|class|layer|line|core|network|seed|module|branch|row|search|pixel|process|point|term|tag"
    "|input|turn|case|image|kind|step|model|file|training|run|kernel|thread|name|person|measurement"
)
PHRASES = (
    r"\banew\b",
    r"\bgo(es|ne|ing)? on with\b",
    r"\bor next to\b(?! (it|the|each|one|its)\b)",
    r"\bhow (is|are) (searched|trained|scored|judged|timed|evaluated|exported)\b",
    rf"\bone an? ({_THINGS})\b",
    rf"\ban? [a-z]+ an? ({_THINGS})\b(?! of)",
    rf"\ban? ({_THINGS}) each\b",
    r"\bwhat (a |the |that |an )?\w* ?came to\b",
    r"\bno budget or two\b",
    r"\bthey are no (records|times)\b",
    r"\b\d[\d.]*, or \d[\d.]*\b",
    r"\btells? of\b",
    r"\bso many (networks|images|pixels|bytes|steps|times|candidates|characters|inches|of)\b",
    r"\b(is|are|nothing else) said\b",
    r"\bwhat is as usual\b",
    r"\b(runs|files|hashes|those|that) of before\b",
    r"\bspeaks? against\b",
    r"\bcannot be had\b",
    r"\btold of\b",
    r"\bto save and to tell\b",
    r"\b(it|what|which|that) (is|are) no (YAML|JSON|file|spec|number|network|image)\b",
    r"\bshall\b",
    r"^See that (an?|the|there|each|no|it)\b",
)
"""Ellipsis, telegrams, the word order of another language, and old words, which a native engineer would not write."""
_PHRASES = re.compile("|".join(PHRASES), re.IGNORECASE)


@cache
def every_message() -> tuple[Message, ...]:
    return tuple(messages())


def is_wrapped(text: str) -> bool:
    """Whether a message is another error's text, at most with the name of a file in front."""
    return not re.search(r"\w", re.sub(r"\((and )?\{\} (more|of \{\})\)", "", text).replace(HOLE, ""))


def report(faults: list[str]) -> None:
    """Fail with the faults by folder."""
    folders: dict[str, list[str]] = {}
    for fault in sorted(set(faults)):
        folders.setdefault(fault.partition(":")[0].rpartition("/")[0] or ".", []).append(fault)
    if folders:
        pytest.fail("\n".join(f"{name}/ ({len(of)}):\n  " + "\n  ".join(of) for name, of in folders.items()))


def test_messages_are_found() -> None:
    """All kinds of messages are collected: plain, joined, with variants, and built by helpers."""
    texts = {message.text for message in every_message()}
    assert len(texts) > 500
    assert len({message.place for message in every_message() if message.kind not in PARTS}) > 450
    assert "{}: cannot be written: {}" in texts


def test_messages_say_what_was_found_and_expected() -> None:
    faults = []
    for message in every_message():
        forms = PART_FORMS if message.kind in PARTS else FORMS
        if not is_wrapped(message.text) and not any(form.search(message.text) for form in forms.values()):
            faults.append(f"{message.place}: {message.kind}: {message.text}")
    report(faults)


def test_messages_start_with_what_they_are_about() -> None:
    """With a file, a field or a flag; a usage error of several arguments with `found`, and their names."""
    faults = []
    for message in every_message():
        if message.kind in PARTS or is_wrapped(message.text):
            continue
        subject = SUBJECT.match(message.text)
        about = bool(subject and len(subject[0]) <= SUBJECT_CHARACTERS and not VERB.search(subject[0]))
        several = message.kind in {*USAGE_ERRORS, "BudgetError"} and re.match(r"found .*, expected", message.text)
        if not about and not several and not message.text.startswith(HOLE):
            faults.append(f"{message.place}: {message.kind}: {message.text}")
    report(faults)


def test_messages_are_one_short_line() -> None:
    report(
        [
            f"{message.place}: {len(message.constant)} characters: {message.text}"
            for message in every_message()
            if len(message.constant) > CHARACTERS or "\n" in message.text
        ]
    )


def test_words_are_plain() -> None:
    """Docstrings, comments, messages, help, README and docs have none of the phrases."""
    faults = [
        f"{place}: {found[0]!r} in: {text[max(0, found.start() - 50) : found.end() + 50]}"
        for place, text in prose()
        for found in _PHRASES.finditer(text)
    ]
    report(faults)


@pytest.mark.parametrize(
    "text",
    [
        "{}: found {}",
        "`batch`: found it with the file {}, which has its own",
        "{}: found metadata of another version",
        "limit: expected a number",
        "{}: which of them are classes?",
    ],
)
def test_the_forms_refuse_messages_that_lack_a_half(text: str) -> None:
    assert not is_wrapped(text)
    assert not any(form.search(text) for form in FORMS.values())


@pytest.mark.parametrize(
    "text",
    [
        "How is searched, by whichever method.",
        "A search that is gone on with.",
        "The space is searched through, or next to",
        "Each position has a layer a kernel size, as wide as asked.",
        "A tensor of maps, one a joint each",
        "What a run came to.",
        "found no budget or two, expected one",
        "They are no records.",
        "For networks with weights 0.9, or 0.8",
        "statistics estimated anew",
        "a line a training",
    ],
)
def test_the_phrases_are_recognised(text: str) -> None:
    assert _PHRASES.search(text)
