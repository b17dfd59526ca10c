"""The YAML files that hold search spaces."""

import hashlib
import json
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Self

from scalenet_zoo.arch.spec import Name
from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.packaged import read_packaged


class SpaceFile(Strict):
    """Base of search spaces, which are read from YAML files.

    Attributes:
        packaged: the folder of the spaces of this kind that come with the package.
        name: the space's name.
    """

    packaged: ClassVar[str]
    name: Name

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """Load a space of the package by its name, or any space by the path of its YAML file.

        Raises:
            InputError: there is no such space or file, or it is not valid YAML.
            SpecError: a field is missing, unknown or out of range.
        """
        _, values = read_packaged(Path(str(files("scalenet_zoo.spaces"))) / "packaged" / cls.packaged, source, "space")
        return cls.from_values(values, str(source))

    @classmethod
    def from_values(cls, values: object, source: str) -> Self:
        """Make a space from the content of a YAML file; `source` names it in errors.

        Raises:
            SpecError: a field is missing, unknown or out of range.
        """
        with spec_errors(source):
            return cls.model_validate_json(json.dumps(values))

    @cached_property
    def hash(self) -> str:
        """The sha256 of all fields but the name."""
        return hashlib.sha256(self.model_dump_json(exclude={"name"}).encode()).hexdigest()
