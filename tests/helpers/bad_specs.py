"""Specs and files of specs that are wrong, each with what is said of it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalenet_zoo import load_spec


def setting(*keys: str | int, value: Any) -> Callable[[Any], Any]:
    """A change that puts a value at a path of keys."""

    def change(data: Any) -> Any:
        at = data
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
        return data

    change.__name__ = f"{'.'.join(map(str, keys))}={value!r:.20}"
    return change


def without(key: str) -> Callable[[Any], Any]:
    def change(data: Any) -> Any:
        del data[key]
        return data

    change.__name__ = f"without {key}"
    return change


LAYER = ("network", "stages", 2, 0)


MODULE = ("network", "modules", 0)


BAD_MBCONV = [
    (setting("format", value="zip"), "format: found 'zip', expected 'scalenet-zoo/arch'"),
    (setting("version", value=2), "version: found 2, expected less than or equal to 1"),
    (setting("extra", value=1), "extra: found 1, expected no such field"),
    (setting(*LAYER, "dilation", value=2), "network.stages.2.0.dilation: found 2, expected no such field"),
    (without("cost"), "cost: is missing"),
    (setting("two\nlines", value=1), "'two\\nlines': found 1, expected no such field"),
    (setting("x" * 5000, value=1), "...xxxxxxxxxxxxx': found 1, expected no such field"),
    (setting("name", value="Bad Name"), "name: found 'Bad Name', expected text that matches ^[a-z0-9]"),
    (setting("task", value="pose"), "task: found 'pose', expected 'classification'"),
    (
        setting("network", "type", value="transformer"),
        "network: found the type 'transformer', expected one of 'mbconv', 'multipath'",
    ),
    (
        setting("network", "activation", value="gelu"),
        "network.activation: found 'gelu', expected 'relu', 'relu6', 'swish' or",
    ),
    (
        setting("network", "padding", value="valid"),
        "network.padding: found 'valid', expected 'symmetric' or 'same'",
    ),
    (setting("network", "norm_eps", value=0.0), "network.norm_eps: found 0.0, expected greater than 0"),
    (setting("network", "stages", 0, 0, "expand", value=1), "expand: found 1, expected a valid boolean"),
    (setting("network", "stages", value=[]), "network.stages: found [], expected at least 1 item"),
    (
        setting(*LAYER, "channels", value=-8),
        "network.stages.2.0.channels: found -8, expected greater than or equal to 1",
    ),
    (setting(*LAYER, "channels", value=0), "network.stages.2.0.channels: found 0, expected greater than or equal to 1"),
    (setting(*LAYER, "channels", value=10**9), "network.stages.2.0.channels: found 1000000000, expected less than or"),
    (setting(*LAYER, "channels", value=2**63), "network.stages.2.0.channels: found 9223372036854775808, expected less"),
    (setting(*LAYER, "channels", value=40.5), "network.stages.2.0.channels: found 40.5, expected a valid integer"),
    (setting(*LAYER, "channels", value=40.0), "network.stages.2.0.channels: found 40.0, expected a valid integer"),
    (setting(*LAYER, "channels", value=True), "network.stages.2.0.channels: found True, expected a valid integer"),
    (setting(*LAYER, "channels", value="40"), "network.stages.2.0.channels: found '40', expected a valid integer"),
    (setting(*LAYER, "channels", value=None), "network.stages.2.0.channels: found None, expected a valid integer"),
    (setting(*LAYER, "kernel", value=4), "network.stages.2.0.kernel: found 4, expected an odd number"),
    (setting(*LAYER, "kernel", value=33), "network.stages.2.0.kernel: found 33, expected less than or equal to 31"),
    (setting(*LAYER, "stride", value=3), "network.stages.2.0.stride: found 3, expected less than or equal to 2"),
    (setting("input", "height", value=float("inf")), "input.height: found "),
    (setting("input", "height", value=0), "input.height: found 0, expected greater than or equal to 1"),
    (
        setting("cost", "macs", value=352691327),
        "cost.macs: found 352691327, expected 352691328, the cost of this network",
    ),
    (setting("cost", "params", value=1), "cost.params: found 1, expected 4442700, the cost of this network"),
]


BAD_MULTIPATH = [
    (setting(*MODULE, "depth", value=[6, 4]), "network.modules.0.depth.0: found 6, expected less than or equal to 5"),
    (
        setting(*MODULE, "depth", value=[0, 4]),
        "network.modules.0.depth.0: found 0, expected greater than or equal to 1",
    ),
    (
        setting(*MODULE, "depth", value=[3, 4, 4]),
        "network.modules.0: fusion: found 2 branches, expected 3, as in depth",
    ),
    (setting(*MODULE, "fusion", 0, value=[[1, 0]] * 4), "network.modules.0.fusion: found"),
    (setting(*MODULE, "fusion", 1, 0, value=[1]), "expected [to][step][from] of shape 2 x 5 x 2"),
    (setting(*MODULE, "fusion", 0, 0, value=[2, 0]), "network.modules.0.fusion.0.0.0: found 2, expected less than or"),
    (
        setting(*MODULE, "fusion", 0, 0, value=[0, 1]),
        "fusion[0][0][0]: found 0, expected 1 (a branch always keeps itself)",
    ),
    (setting(*MODULE, "fusion", 0, 4, value=[1, 1]), "fusion[0][4]: found [1, 1], expected zeros past the depth 3"),
    (
        setting("network", "head", value="pose"),
        "task: found 'segmentation', expected 'pose', the task of this network",
    ),
    (setting("network", "modules", 7, value=None), "network.modules.7: found None, expected"),
]


def corrupt(tmp_path: Path, name: str) -> Path:
    """A file that is wrong in the way that its name says."""
    good = load_spec("scalenet_s0").to_json()
    path = tmp_path / f"{name}.json"
    match name:
        case "truncated":
            path.write_text(good[: len(good) // 2])
        case "empty":
            path.write_text("")
        case "binary":
            path.write_bytes(b"\x80\x02}q\x00.")
        case "duplicate":
            path.write_text(good.replace('"version": 1,', '"version": 1, "version": 1,'))
        case "nan":
            path.write_text(good.replace('"height": 224', '"height": NaN'))
        case "infinite":
            path.write_text(good.replace('"details": {', '"details": {"x": 1e999, '))
        case "surrogate":
            path.write_text(good.replace('"details": {', '"details": {"x": "\\ud800", '))
        case "endless":
            path.write_text(good.replace('"height": 224', f'"height": {"9" * 5000}'))
        case "deep":
            path.write_text("[" * 100_000 + "]" * 100_000)
        case "deep_field" | "deeper_field":
            depth = 400 if name == "deep_field" else 950
            nested = "[" * depth + "]" * depth
            path.write_text(good.replace('"details": {', f'"details": {{"deep": {nested}, '))
        case "huge":
            with path.open("wb") as file:
                file.truncate(2 * 2**30)  # sparse: 2 GB that take no room
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    return path
