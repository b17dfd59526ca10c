"""The configuration of a search that ends in seconds."""

from pathlib import Path
from typing import Any

import yaml

from tests.helpers.spaces import TINY

CONFIG: dict[str, Any] = {
    "name": "toy",
    "data": "digits",
    "limit": 80,
    "space": TINY.model_dump(mode="json"),
    "limits": {"macs": "140K", "tolerance": 0.3, "growth": 0.5},
    "supernet": {"recipe": {"epochs": 1, "batch_size": 16, "lr": 0.05, "hflip": 0.0}},
    "scoring": {"bn_images": 32, "val_images": 40, "paths": "single"},  # half the time of both
    "search": {"population": 4, "generations": 2, "rounds": 1, "keep": 3, "first_bases": 2},
    "baselines": ["random", "compound", "separate"],
}


HERE = ("--cpu", "--workers", "0")


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return path
