"""What a shell completes, through the shell's own protocol and in a real process."""

import os
import subprocess
import sys

import pytest

from scalenet_zoo import list_models
from scalenet_zoo.core.backends import BACKENDS
from scalenet_zoo.training.recipe import recipe_names
from scalenet_zoo.zoo.published import published_entries
from tests.helpers.command import COMMAND


def complete(line: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Complete the last word of a command line as bash does."""
    line = f"scalenet-zoo {line}"
    words = line.split(" ")
    protocol = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_SCALENET_ZOO_COMPLETE": "complete_bash"}
    command = [sys.executable, *flags, str(COMMAND)]
    return subprocess.run(command, env=os.environ | protocol, capture_output=True, text=True, check=False)


TAGS = [f"tf_efficientnet_b0.{tag}" for tag in published_entries()["tf_efficientnet_b0"].tags]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ex", ["explore", "export"]),
        ("show scalenet_", list_models("scalenet_*")),
        ("show tf_efficientnet_b0.", TAGS),
        ("train scalenet_s0 --recipe ", recipe_names()),
        ("search ", ["cityscapes", "coco-pose", "digits", "imagenet"]),
        ("build --on ", list(BACKENDS)),
        ("build --family hr", ["hrnet"]),
        ("export a.onnx --precision ", ["fp32", "fp16", "int8"]),
        ("benchmark scalenet_s0 --on torch,ort-c", ["torch,ort-cpu", "torch,ort-cuda"]),
        ("benchmark scalenet_s0 --precision fp32,", ["fp32,fp16", "fp32,int8"]),
        ("predict --model hrnet_w18", ["hrnet_w18", "hrnet_w18_pose"]),
    ],
)
def test_completions(line: str, expected: list[str]) -> None:
    found = complete(line)
    assert sorted(found.stdout.split()) == sorted(expected), found.stderr


def test_completion_imports_neither_torch_nor_numpy() -> None:
    found = complete("show scalenet_s0.", "-X", "importtime")
    modules = {line.split("|")[-1].strip() for line in found.stderr.splitlines()}
    assert "scalenet_zoo.zoo.published" in modules
    assert modules.isdisjoint({"torch", "numpy", "timm", "onnx"})
