"""The part of a run's provenance that others may see: data and commands without the paths of this machine."""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import ArchSpec, Provenance

_KIND = re.compile(r"^([a-z][a-z0-9-]+):(?!//)(.+)$")
"""A data set or network as it is written in commands: `imagefolder:PATH`, `hfds:org/name`."""
_OF_THE_HUB = ("hfds", "hfids", "hf-hub")
_NAME = r"[^\s'\"|<>,;()]"
_PATH = re.compile(rf"(?<![\w/:.~\\])(?:(?:~\w*|\.{{1,2}})/{_NAME}+|/{_NAME}+/{_NAME}+|(?:[A-Za-z]:|~)\\{_NAME}+)")
"""A part of a text that can only be a path: one that starts at the root, at a home folder or at dots."""


def public_source(source: str) -> str:
    """Shorten a data set's or network's path to its last name; names on the Hub stay as they are."""
    if not (match := _KIND.match(source)):
        return _last_name(source) if _is_path(source) else source
    kind, rest = match.groups()
    if kind in _OF_THE_HUB:
        return source
    name, colon, path = rest.partition(":") if kind == "torch" else ("", "", rest)
    return f"{kind}:{name}{colon}{_last_name(path)}"


def public_command(arguments: Sequence[str]) -> str:
    """Format a command line as one would type it, with each path shortened to its last name."""
    return shlex.join(_public_argument(argument) for argument in arguments)


def public_spec(spec: "ArchSpec") -> "ArchSpec":
    """Return the spec with a provenance that names no path of this machine."""
    public = public_provenance(spec.provenance)
    return spec if public == spec.provenance else spec.model_copy(update={"provenance": public})


def public_provenance(provenance: "Provenance") -> "Provenance":
    """Shorten each path of this machine in a provenance, its figures and its details to the path's last name."""
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
    """Shorten the path of a data set; its split and more may follow: `coco:/home/me/people val, scored on minival`."""
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
    except ValueError:  # a quote is not closed
        return _PATH.sub(lambda match: _last_name(match[0]), text)


def _public_argument(argument: str) -> str:
    flag, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return f"{flag}{equals}{public_source(value)}"


def _is_path(text: str) -> bool:
    """Tell by its form whether a text is a path of this machine; `org/name` may be a repository on the Hub."""
    return text.startswith(("/", "~", "./", "../", ".\\", "..\\", "\\")) or bool(re.match(r"[A-Za-z]:[\\/]", text))


def _last_name(path: str) -> str:
    pure = PureWindowsPath if "\\" in path else PurePosixPath
    return pure(path).name or "path"
