"""The zoo's names in timm's registry; `scalenet_zoo/__init__.py` has `register` called once timm is imported."""

from collections.abc import Callable
from typing import Any

from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model
from torch import nn

from scalenet_zoo.zoo import create_model, list_models, load_spec, pretrained_cfg

default_cfgs: dict[str, Any] = {}  # timm looks this up by name in the module of an entry point


def timm_name(name: str) -> str:
    """A zoo entry's name in timm: its own, with `zoo_` before it where timm has a model of that name."""
    return f"zoo_{name}" if is_model(name) else name


def register() -> None:
    """Register every entry of the zoo."""
    published = {timm_name(name): name for name in list_models()}
    default_cfgs.update(
        generate_default_cfgs(
            {ours: PretrainedCfg(**pretrained_cfg(load_spec(name))) for ours, name in published.items()}
        )
    )
    for ours, name in published.items():
        register_model(_entry_point(ours, name))


def _entry_point(published: str, name: str) -> Callable[..., nn.Module]:
    def entry_point(
        pretrained: bool = False,
        pretrained_cfg: object = None,
        pretrained_cfg_overlay: object = None,
        cache_dir: object = None,
        **kwargs: Any,  # noqa: ANN401 - timm's protocol
    ) -> nn.Module:
        for option, value in (
            ("pretrained_cfg", pretrained_cfg),
            ("pretrained_cfg_overlay", pretrained_cfg_overlay),
            ("cache_dir", cache_dir),
        ):
            if value is not None:
                raise TypeError(f"{published}: {option} is not supported, expected none")
        return create_model(name, pretrained=pretrained, **kwargs)

    entry_point.__name__ = published
    entry_point.__module__ = __name__
    return entry_point
