"""The JSON Schemas of the file formats, generated from the code and kept in `searched_archs/` (`make schema`)."""

import json
from importlib.resources import files
from pathlib import Path

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.documents import Document
from scalenet_zoo.core.files import replacing

SCHEMAS: dict[str, type[Document]] = {"arch.schema.json": ArchSpec, "family.schema.json": Family}
SCHEMAS_FOLDER = Path(str(files("scalenet_zoo.searched_archs")))


def schema_text(document: type[Document]) -> str:
    """Generate the JSON Schema of one file format, as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | document.model_json_schema()
    return json.dumps(schema, indent=2) + "\n"


def write_schemas() -> None:
    """Write all schemas to `searched_archs/`.

    Raises:
        OutputError: a file cannot be written.
    """
    for name, document in SCHEMAS.items():
        with replacing(SCHEMAS_FOLDER / name) as temporary:
            temporary.write_text(schema_text(document), encoding="utf-8")
