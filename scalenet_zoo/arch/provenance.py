"""What of a run's origin others may see: data and commands without the paths of this machine."""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import ArchSpec, Provenance

_KIND = re.compile(r"^([a-z][a-z0-9-]+):(?!//)(.+)$")
"""A data set or network as commands take them: `imagefolder:PATH`, `hfds:org/name`."""
_OF_THE_HUB = ("hfds", "hfids", "hf-hub")
_NAME = r"[^\s'\"|<>,;()]"
_PATH = re.compile(rf"(?<![\w/:.~\\])(?:(?:~\w*|\.{{1,2}})/{_NAME}+|/{_NAME}+/{_NAME}+|(?:[A-Za-z]:|~)\\{_NAME}+)")
"""A path in a text that can be nothing else: from the root, a home or a folder named by dots."""


def public_source(source: str) -> str:
    """A data set or network as it was named, with the last name of its path alone; names of the Hub stay."""
    if not (match := _KIND.match(source)):
        return _last_name(source) if _is_path(source) else source
    kind, rest = match.groups()
    if kind in _OF_THE_HUB:
        return source
    name, colon, path = rest.partition(":") if kind == "torch" else ("", "", rest)
    return f"{kind}:{name}{colon}{_last_name(path)}"


def public_command(arguments: Sequence[str]) -> str:
    """A command line as one would type it, with the last names of its paths alone."""
    return shlex.join(_public_argument(argument) for argument in arguments)


def public_spec(spec: "ArchSpec") -> "ArchSpec":
    """A spec whose provenance names no path of this machine."""
    public = public_provenance(spec.provenance)
    return spec if public == spec.provenance else spec.model_copy(update={"provenance": public})


def public_provenance(provenance: "Provenance") -> "Provenance":
    """A provenance that names no path of this machine, wherever in its figures and details it was."""
    from scalenet_zoo.arch.spec import Provenance

    return Provenance.model_validate(_public(provenance.model_dump()), strict=False)


def _public(value: Any, field: str = "") -> Any:  # noqa: ANN401 - JSON is any of six types
    if isinstance(value, dict):
        return {key: _public(item, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(item, field) for item in value]
    if not isinstance(value, str):
        return value
    if field == "command":
        return _public_command_text(value)
    if field == "data":
        return _public_data(value)
    return _PATH.sub(lambda match: _last_name(match[0]), value)


def _public_data(text: str) -> str:
    """A data set, maybe with its split after it, and more: `coco:/home/me/people val, scored on minival`."""
    source, comma, more = text.partition(", ")
    path, space, split = source.rpartition(" ")
    if not space or "/" in split or "\\" in split:
        path, space, split = source, "", ""
    return f"{public_source(path)}{space}{split}{comma}{more}"


def _public_command_text(text: str) -> str:
    try:
        arguments = shlex.split(text)
        public = [_public_argument(argument) for argument in arguments]
        return text if public == arguments else shlex.join(public)
    except ValueError:  # quotes that nobody closes
        return _PATH.sub(lambda match: _last_name(match[0]), text)


def _public_argument(argument: str) -> str:
    flag, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return f"{flag}{equals}{public_source(value)}"


def _is_path(text: str) -> bool:
    """Whether a text is a path of this machine, as far as its form tells: `org/name` may be one of the Hub's."""
    return text.startswith(("/", "~", "./", "../", ".\\", "..\\", "\\")) or bool(re.match(r"[A-Za-z]:[\\/]", text))


def _last_name(path: str) -> str:
    pure = PureWindowsPath if "\\" in path else PurePosixPath
    return pure(path).name or "path"
