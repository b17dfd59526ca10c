"""The page about the file formats, from their JSON Schemas."""

import json
from collections.abc import Iterator
from typing import Any

from scalenet_zoo.arch.schemas import SCHEMAS
from tools.docs.markdown import escaped

Schema = dict[str, Any]


def formats_page() -> str:
    """Write the tables of all fields of the spec's and the family's JSON files, as Markdown."""
    sections = "\n\n".join(_document(name, kind.model_json_schema()) for name, kind in SCHEMAS.items())
    return sections + "\n"


def _document(name: str, schema: Schema) -> str:
    prefix = name.removesuffix(".schema.json")
    parts = [f"## {schema['title']}: `{name}` {{ #{prefix} }}", *_table(schema, prefix)]
    for title, definition in schema["$defs"].items():
        if definition:  # JsonValue is anything
            parts += [f"### {title} {{ #{prefix}-{title.lower()} }}", *_table(definition, prefix)]
    return "\n\n".join(parts)


def _table(schema: Schema, prefix: str) -> Iterator[str]:
    yield escaped(schema["description"])
    rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field, value in schema["properties"].items():
        default = "required" if field in schema.get("required", ()) else f"`{json.dumps(value.get('default'))}`"
        rows.append(f"| `{field}` | {_type(value, prefix)} | {default} | {escaped(value.get('description', ''))} |")
    yield "\n".join(rows)


def _type(value: Schema, prefix: str) -> str:
    """What a field may hold, in words, with links to the objects."""
    if not value:
        return "any JSON value"
    if "$ref" in value:
        title = value["$ref"].rsplit("/", 1)[1]
        return "any JSON value" if title == "JsonValue" else f"[{title}](#{prefix}-{title.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in value:
            return " or ".join(_type(choice, prefix) for choice in value[key])
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value["type"] == "array":
        if "prefixItems" in value:
            return "array of " + ", ".join(_type(item, prefix) for item in value["prefixItems"])
        return f"array{_count(value)} of {_type(value['items'], prefix)}"
    if value["type"] == "object":
        return "object"
    return f"{value['type']}{_range(value)}"


def _count(value: Schema) -> str:
    if "minItems" not in value and "maxItems" not in value:
        return ""
    least, most = value.get("minItems", 0), value.get("maxItems")
    return (
        f" ({least} items)" if least == most else f" ({least} to {most} items)" if most else f" ({least} items or more)"
    )


def _range(value: Schema) -> str:
    """The limits of a number or a text."""
    limits = []
    least, most = value.get("minimum"), value.get("maximum")
    if least is not None and most is not None:
        limits.append(f"{least:,} to {most:,}" if least != most else f"{least:,}")
    elif least is not None:
        limits.append(f"at least {least:,}")
    if (above := value.get("exclusiveMinimum")) is not None:
        limits.append(f"above {above:,}")
    if most is not None and least is None:
        limits.append(f"at most {most:,}")
    if (factor := value.get("not", {}).get("multipleOf")) is not None:
        limits.append("odd" if factor == 2 else f"not a multiple of {factor}")
    if "pattern" in value:
        limits.append(f"matches `{value['pattern']}`".replace("|", "\\|"))
    if "maxLength" in value:
        limits.append(f"at most {value['maxLength']:,} characters")
    return f" ({', '.join(limits)})" if limits else ""
