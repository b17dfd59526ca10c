"""What the classes of TensorRT's Python packages have, read from the packages themselves.

The packages of bindings (`tensorrt-cu13-bindings` and its like) hold no library, and there is none
on most machines: empty shared libraries of the right names, made on the spot, let them be imported.

    python -m tests.helpers.tensorrt_bindings FOLDER...

writes `tensorrt_signatures.json` anew from folders that such packages were unpacked into.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from scalenet_zoo.core.files import format_json

SIGNATURES = Path(__file__).with_name("tensorrt_signatures.json")
CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "EngineStat",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
)
FUNCTIONS = (
    *(f"create{part}_INTERNAL" for part in ("InferBuilder", "InferRefitter", "InferRuntime")),
    *(f"createNvOnnxParser{part}_INTERNAL" for part in ("", "Refitter")),
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
DUMP = """
import json, sys
import tensorrt_bindings as trt
classes = {name: getattr(trt, name) for name in sys.argv[1:] if hasattr(trt, name)}
found = {name: sorted(m for m in dir(c) if not m.startswith("_")) for name, c in classes.items()}
print(json.dumps({"version": trt.__version__, "classes": found}))
"""


def find_bindings() -> list[Path]:
    """Folders with a package of bindings: the environment's, and those named in TENSORRT_BINDINGS."""
    spec = find_spec("tensorrt_bindings")
    installed = [Path(spec.origin).parents[1]] if spec and spec.origin else []
    return installed + [Path(folder) for folder in os.environ.get("TENSORRT_BINDINGS", "").split(os.pathsep) if folder]


def read_bindings(folder: Path) -> tuple[str, dict[str, list[str]]]:
    """The version of a package of bindings, and the public members of its classes."""
    (library,) = (folder / "tensorrt_bindings").glob("tensorrt*.so")
    major = next(n for n in ("10", "11") if f"libnvinfer.so.{n}\0".encode() in library.read_bytes())
    with tempfile.TemporaryDirectory() as empty:
        source = Path(empty) / "empty.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            so = f"lib{name}.so.{major}"
            subprocess.run(
                ["cc", "-shared", "-fPIC", f"-Wl,-soname,{so}", "-o", f"{empty}/{so}", str(source)], check=True
            )
        found = subprocess.run(
            [sys.executable, "-c", DUMP, *CLASSES],
            env={**os.environ, "LD_LIBRARY_PATH": empty, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
    answer = json.loads(found.stdout)
    return answer["version"], answer["classes"]


def read_signatures() -> dict[str, dict[str, list[str]]]:
    """Version -> class -> members, as they were last written."""
    signatures: dict[str, dict[str, list[str]]] = json.loads(SIGNATURES.read_text())
    return signatures


VERSIONS = tuple(read_signatures())


if __name__ == "__main__":
    SIGNATURES.write_text(format_json(dict(read_bindings(Path(folder)) for folder in sys.argv[1:])) + "\n")
