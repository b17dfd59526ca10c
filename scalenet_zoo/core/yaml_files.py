"""A bounded reader for YAML of plain values.

PyYAML reads YAML 1.1, in which `1e-3` is a text, `010` is eight, `1:30` is ninety and `2024-01-01` is a date. This
reader takes the numbers of YAML 1.2 as numbers, and the rest as text.
"""

import re
from typing import Any

import yaml

from scalenet_zoo.core.bounds import INTEGER, NESTING, YAML_VALUES
from scalenet_zoo.core.quoting import quoted

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?\d[\d_]*$")
_FLOAT = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the differences above; it only knows the tags of JSON's values."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) in ("bool", "null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in ("bool", "null", "str", "seq", "map")
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            self._check_names(node)
        return super().construct_mapping(node, deep)

    def _check_names(self, node: yaml.MappingNode) -> None:
        names: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise ValueError(f"found {quoted(name)} as the name of a value, expected text")
            if name in names:
                raise ValueError(f"found the name {quoted(name)} twice, expected it once")
            names.add(name)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Read a 64-bit integer or a float; infinities pass, since the caller can refuse them by the field's name."""
        text = str(node.value)
        digits = text.replace("_", "")
        value: int | float | None = None
        if node.tag == f"{_TAG}int" and _INTEGER.match(text):
            value = int(digits) if len(digits) <= 21 else None
        elif node.tag == f"{_TAG}float" and _FLOAT.match(text):
            value = float(digits.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if value is None or (isinstance(value, int) and abs(value) >= INTEGER):
            line = node.start_mark.line + 1
            raise ValueError(f"line {line}: found {quoted(text)}, expected a float or a 64-bit integer")
        return value


_Loader.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
for _kind in ("int", "float"):
    _Loader.add_constructor(f"{_TAG}{_kind}", _Loader.construct_number)


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - plain values
    """Parse YAML text into plain values.

    Raises:
        ValueError: the text is not valid; the message is one line without the file's name.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, 0, {})
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("is nested too deeply to be read") from None
    except (yaml.YAMLError, KeyError) as error:  # a KeyError comes from a value tagged as a bool that is neither
        raise ValueError(f"is not valid YAML: {' '.join(str(error).split())}") from None
    return value


def _measure(node: yaml.Node, depth: int, known: dict[int, int]) -> int:
    """Count the values that a node becomes; those behind an anchor count each time they are used.

    Args:
        node: a node of the graph; the node of an anchor has several parents.
        depth: the number of nodes around it.
        known: the counts of nodes by identity; 0 for the nodes around this one.

    Raises:
        ValueError: there are too many values, they are nested too deeply, or one contains itself.
    """
    if depth > NESTING:
        raise ValueError(f"is nested too deeply to be read, expected at most {NESTING} levels")
    if id(node) not in known:
        known[id(node)] = 0
        children = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        count = 1 + sum(_measure(child, depth + 1, known) for child in children)
        if count > YAML_VALUES:
            raise ValueError(f"found {count:,} values with anchors expanded, expected at most {YAML_VALUES:,}")
        known[id(node)] = count
    if not known[id(node)]:
        raise ValueError("found an anchor that contains itself, expected none")
    return known[id(node)]
