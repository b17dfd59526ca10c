"""Documents: the JSON files that we read and write, as immutable pydantic models with errors of one line.

file --read_text--> text --parse_json--> dict --pydantic--> Document
|
size and number of values checked; the first complaint, as one line
"""

import json
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from scalenet_zoo.core.bounds import JSON_BYTES, JSON_VALUES
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.core.files import format_json, parse_json, read_text, replacing
from scalenet_zoo.core.quoting import elide, quoted


class Strict(BaseModel):
    """Base of immutable data: no coercion of types, no unknown fields, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Document(Strict):
    """The content of one of our JSON files, such as an architecture spec or a family.

    Attributes:
        most_bytes: the largest size of a file.
        most_values: the largest number of JSON values in a file.
    """

    most_bytes: ClassVar[int] = JSON_BYTES
    most_values: ClassVar[int] = JSON_VALUES

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a file.

        Raises:
            SpecError: one line that names the file, the field, what was found and what was expected.
        """
        path = Path(path)
        try:
            text = read_text(path, cls.most_bytes)
        except ValueError as error:
            raise SpecError(f"{path}: {error}") from None
        return cls.from_text(text, source=str(path))

    @classmethod
    def from_text(cls, text: str, source: str) -> Self:
        """Read and check the text of a JSON file; `source` names it in errors.

        Raises:
            SpecError: as `load`.
        """
        try:
            _check_values(text, cls.most_values)
            data = parse_json(text)
        except ValueError as error:
            raise SpecError(f"{source}: {error}") from None
        return cls.from_dict(data, source)

    @classmethod
    def from_dict(cls, data: object, source: str) -> Self:
        """Check the parsed content of a JSON file; `source` names it in errors.

        Raises:
            SpecError: as `load`.
        """
        with spec_errors(source):
            # Our fields for JSON arrays are tuples; strict validation accepts arrays for them only in JSON mode.
            return cls.model_validate_json(json.dumps(data))

    def to_json(self) -> str:
        """Format the file's text, with one line per layer or per array of a module."""
        return format_json(self.model_dump(mode="json", exclude_none=True)) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(Path(path)) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


def _check_values(text: str, most: int) -> None:
    """Refuse JSON with more values than our documents have, before pydantic complains about each of them."""
    if (values := sum(map(text.count, ",[{"))) > most:
        raise ValueError(f"found about {values:,} values, expected at most {most:,}")


@contextmanager
def spec_errors(source: str) -> Iterator[None]:
    """Turn pydantic's errors into one line that begins with `source`.

    Raises:
        SpecError: the code within raised a `ValidationError`, or its data are nested too deeply.
    """
    try:
        yield
    except ValidationError as error:
        raise SpecError(f"{source}: {first_complaint(error)}") from None
    except RecursionError:
        raise SpecError(f"{source}: is nested too deeply to be read") from None


def first_complaint(error: ValidationError) -> str:
    """Put the first of pydantic's complaints on one line: the field, what was found and what was expected."""
    details = error.errors(include_url=False)
    first = details[0]
    tags = ("mbconv", "multipath")  # pydantic puts a union's tag into the location; the file has no such key
    field = ".".join(_key(part) for part in first["loc"] if part not in tags)
    found = elide(reprlib.repr(first["input"]), 80)
    message = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "missing":
            complaint = "is missing"
        case "json_invalid" if "recursion" in message:  # JSON that Python could read
            complaint = "is nested too deeply to be read"
        case "extra_forbidden":
            complaint = f"found {found}, expected no such field"
        case _ if " should have " in message:
            expected = message.partition(" should have ")[2].partition(" after validation")[0]
            complaint = f"found {found}, expected {expected}"
        case "string_pattern_mismatch":
            complaint = f"found {found}, expected text that matches {first['ctx']['pattern']}"
        case "union_tag_invalid":
            complaint = f"found the {first['ctx']['discriminator'][1:-1]} {quoted(first['ctx']['tag'])}"
            complaint += f", expected one of {first['ctx']['expected_tags']}"
        case "union_tag_not_found":
            complaint = f"found no {first['ctx']['discriminator'][1:-1]}, expected one"
        case _ if message.startswith("Input should be "):
            expected = message.removeprefix("Input should be ").partition(" or instance of ")[0]
            complaint = f"found {found}, expected {expected}"
        case "value_error" if message.startswith("expected"):
            complaint = f"found {found}, {message}"
        case _:
            complaint = message
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return (f"{field}: " if field else "") + complaint + more


def _key(part: str | int) -> str:
    plain = isinstance(part, int) or (part.isidentifier() and len(part) <= 60)
    return str(part) if plain else reprlib.repr(part)
