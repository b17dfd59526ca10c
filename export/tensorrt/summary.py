"""What an engine is made of: layers, the types that they read and write, memory."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, Self

from scalenet_zoo.arch.spec import Strict

_TYPES = {
    "float": "fp32",
    "half": "fp16",
    "bfloat16": "bf16",
    **{name: name for name in ("fp32", "fp16", "bf16", "fp8", "int8", "uint8", "int32", "int64", "bool")},
}
"""TensorRT's names of types, in lower case, and ours."""

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
        source: inspector: of the engine, open on a GPU; builder: what the builder said while it was built, which is
            all there is of an engine for other machines.
        layers: in the order in which they run.
        weights_bytes: of the weights, on the GPU; None where TensorRT does not tell.
        activation_bytes: of what an inference needs beside, at the largest batch.
    """

    source: Literal["inspector", "builder"]
    layers: tuple[EngineLayer, ...]
    weights_bytes: int | None = None
    activation_bytes: int | None = None

    @classmethod
    def inspect(cls, trt: Any, engine: Any) -> Self:  # noqa: ANN401 - TensorRT has no types
        """Ask the inspector of an open engine."""
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
        """Read what a builder said; None if it did not say what it built."""
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
        """A table of the kinds of layers: type, types read, types written, how many; the most frequent first."""
        kinds = Counter((layer.type, ", ".join(layer.reads), ", ".join(layer.writes)) for layer in self.layers)
        return [(*kind, count) for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]


def _layer(layer: Any) -> EngineLayer:  # noqa: ANN401 - JSON
    if isinstance(layer, str):  # of an engine that was built to keep the names alone
        return EngineLayer(name=layer, type="", reads=(), writes=())
    reads, writes = (_types(json.dumps(layer.get(side, []))) for side in ("Inputs", "Outputs"))
    return EngineLayer(name=layer["Name"], type=layer["LayerType"], reads=reads, writes=writes)


def _types(tensors: str) -> tuple[str, ...]:
    """The types in a list of tensors, as the log has it or as JSON.

    `Datatype: Half, Format: ...`, or in TensorRT 10 `"Format/Datatype": "Row major linear FP16"`.
    """
    described = re.findall(r'Datatype"?: "?([^,"}]+)', tensors)
    words = (word.lower() for text in described for word in text.split())
    return tuple(dict.fromkeys(_TYPES[word] for word in words if word in _TYPES))
