"""Which arguments of `export_model` go together; checked before anything slow is imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from scalenet_zoo.core.backends import Precision, TargetBackend
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.file_kinds import ENGINE, OPENVINO, exported_kind, user_path
from scalenet_zoo.zoo.sources import NetworkSource, is_exported

ExportFormat = Literal["onnx", "openvino", "tensorrt", "tensorrt-rtx", "triton"]
ENGINES = ("tensorrt", "tensorrt-rtx")


def check_arguments(
    model: object,
    to: str,
    output: Path | None,
    of_network: Mapping[str, Any],
    of_engine: Mapping[str, Any],
    batch: int | tuple[int, int, int] | None,
) -> None:
    """Check that the arguments of `export_model` fit one another, the model and the format.

    Args:
        model, to, output, batch: as in `export_model`.
        of_network: the arguments that only go with a network, by their names.
        of_engine: the arguments that only go with an engine, by their names.

    Raises:
        UsageError: they do not.
    """
    _one_of("to", to, get_args(ExportFormat))
    is_file = is_exported(model)
    if is_file:
        _refuse(of_network, f"with the file {model}", "it with a network")
    if to not in ENGINES:
        _refuse(of_engine, f"with `to` {to}", "it with `to` tensorrt or tensorrt-rtx")
    if is_file:
        _check_file(model, to, batch)
    else:
        _check_network(model, to, of_network)
    if output is not None and to in ENGINES and output.suffix.lower() == ".onnx":
        raise UsageError(f"`output`: found {output}, expected a name for the engine, such as NAME.engine")
    if output is not None and to == "openvino" and output.suffix != ".xml":
        raise UsageError(f"`output`: found {output}, expected a name for OpenVINO's IR, NAME.xml")


def _check_file(model: object, to: str, batch: int | tuple[int, int, int] | None) -> None:
    """Check whether a file can be exported to a format."""
    kind = exported_kind(user_path(str(model)))
    if to == "onnx" or kind == OPENVINO or (kind == ENGINE and to != "triton"):
        raise UsageError(f"`to`: found {to} for the file {model}, expected a network's name")
    if to in ("openvino", "triton") and batch:
        raise UsageError(f"`batch`: found it with the file {model}, expected none, since the file has its own")


def _check_network(model: object, to: str, given: Mapping[str, Any]) -> None:
    """Check the arguments that only go with a network."""
    if not isinstance(model, NetworkSource):
        _refuse({"img_size": given["img_size"]}, "with a network that is built", "it with a name or spec")
    forms = [name for name in ("with_softmax", "with_argmax", "with_joints") if given[name]]
    if len(forms) > 1:
        raise UsageError(f"found `{forms[0]}` and `{forms[1]}`, expected at most one of them")
    precision = given["precision"] or "fp32"
    _one_of("precision", precision, get_args(Precision))
    _one_of("io", given["io"] or "fp32", ("fp32", "fp16"))
    if precision != "int8":
        of_int8 = {name: given[name] for name in ("on", "auto", "calibrator", "activation_bits")}
        _refuse(of_int8, f"with `precision` {precision}", "it with int8")
    elif given["calibration"] is None:
        raise UsageError("`precision`: found int8 without `calibration`, expected a folder of images with it")
    on = given["on"]
    _one_of("on", on or "ort-cpu", get_args(TargetBackend))
    if to not in ("onnx", "triton", on or to):
        raise UsageError(f"`on`: found {on} with `to` {to}, expected {to}")
    _one_of("calibrator", given["calibrator"] or "minmax", ("minmax", "percentile", "entropy"))


def _one_of(argument: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise UsageError(f"`{argument}`: found {given!r}, expected {', '.join(choices[:-1])} or {choices[-1]}")


def _refuse(arguments: Mapping[str, Any], found: str, expected: str) -> None:
    """Raise an error for the first argument that was given: one that is not None, False or empty."""
    for argument, given in arguments.items():
        if given or (given is not False and isinstance(given, int | float)):
            raise UsageError(f"`{argument}`: found it {found}, expected {expected}")
