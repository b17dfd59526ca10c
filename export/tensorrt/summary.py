"""The summary of an engine: its layers, the types that they read and write, and its memory."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, Self

from scalenet_zoo.core.documents import Strict

_TYPES = {
    "float": "fp32",
    "half": "fp16",
    "bfloat16": "bf16",
    **{name: name for name in ("fp32", "fp16", "bf16", "fp8", "int8", "uint8", "int32", "int64", "bool")},
}
"""TensorRT's names of types in lower case, with ours."""

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<type>.*?), Inputs: (?P<inputs>.*?)"
    r"(?:, Constants: .*?)?, Outputs: (?P<outputs>.*?), (?:TacticName|ParameterType): ",
    re.MULTILINE,
)
_MEMORY = re.compile(r"^Total (Activation|Weights) Memory: (\d+) bytes")


class EngineLayer(Strict):
    """A layer of an engine: one or more operators of the network, fused."""

    name: str
    type: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class EngineSummary(Strict):
    """The layers and the memory of an engine.

    Attributes:
        source: inspector: from the inspector of the open engine; builder: from the builder's log, which is the only
            source for an engine that is for other machines.
        layers: the layers in the order in which they run.
        weights_bytes: bytes of the weights on the GPU; None: TensorRT does not report them.
        activation_bytes: bytes that an inference needs in addition, at the largest batch; None: as above.
    """

    source: Literal["inspector", "builder"]
    layers: tuple[EngineLayer, ...]
    weights_bytes: int | None = None
    activation_bytes: int | None = None

    @classmethod
    def inspect(cls, trt: Any, engine: Any) -> Self:  # noqa: ANN401 - TensorRT has no types
        """Read the summary from the inspector of an open engine."""
        inspector = engine.create_engine_inspector()
        information = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        counted = hasattr(trt, "EngineStat")  # not before TensorRT 10.14
        return cls(
            source="inspector",
            layers=tuple(_layer(layer) for layer in information["Layers"]),
            weights_bytes=engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE) if counted else None,
            activation_bytes=engine.device_memory_size_v2,
        )

    @classmethod
    def listen(cls, messages: Iterable[str]) -> Self | None:
        """Read the summary from a builder's log; return None if the log has no layers."""
        layers: tuple[EngineLayer, ...] = ()
        memory: dict[str, int] = {}
        for message in messages:
            if found := _MEMORY.match(message):
                memory[found[1]] = int(found[2])
            elif message.startswith("Layers:"):
                layers = tuple(
                    EngineLayer(name=m["name"], type=m["type"], reads=_types(m["inputs"]), writes=_types(m["outputs"]))
                    for m in _LAYER.finditer(message)
                )
        if not layers:
            return None
        return cls(
            source="builder",
            layers=layers,
            weights_bytes=memory.get("Weights"),
            activation_bytes=memory.get("Activation"),
        )

    def rows(self) -> list[tuple[str, str, str, int]]:
        """Tabulate the kinds of layers: type, types read, types written, count; the most frequent kind first."""
        kinds = Counter((layer.type, ", ".join(layer.reads), ", ".join(layer.writes)) for layer in self.layers)
        return [(*kind, count) for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]


def _layer(layer: Any) -> EngineLayer:  # noqa: ANN401 - JSON
    if isinstance(layer, str):  # the engine was built to keep only the names
        return EngineLayer(name=layer, type="", reads=(), writes=())
    reads, writes = (_types(json.dumps(layer.get(side, []))) for side in ("Inputs", "Outputs"))
    return EngineLayer(name=layer["Name"], type=layer["LayerType"], reads=reads, writes=writes)


def _types(tensors: str) -> tuple[str, ...]:
    """Find the types in a list of tensors, from the log or from JSON.

    An entry has the form `Datatype: Half, Format: ...`, or in TensorRT 10 `"Format/Datatype": "Row major linear FP16"`.
    """
    described = re.findall(r'Datatype"?: "?([^,"}]+)', tensors)
    words = (word.lower() for text in described for word in text.split())
    return tuple(dict.fromkeys(_TYPES[word] for word in words if word in _TYPES))
