"""The zoo's names in timm's registry; `scalenet_zoo/__init__.py` has `register` called once timm is imported.

One more name, `scalenet_zoo`, is the architecture of every model folder: `timm.create_model("hf-hub:org/name")` and
`"local-dir:path"` read it from config.json. The folder is then read by us, from the same place, and not by timm, which
would take weights from pickles.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model
from torch import nn

from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.zoo.catalog import list_models
from scalenet_zoo.zoo.create import create_model
from scalenet_zoo.zoo.interface import pretrained_cfg
from scalenet_zoo.zoo.model_folder import TIMM_ENTRY, read_folder
from scalenet_zoo.zoo.sources import load_spec

default_cfgs: dict[str, Any] = {}  # timm looks this up by name in the module of an entry point


def timm_name(name: str) -> str:
    """A zoo entry's name in timm: its own, with `zoo_` before it where timm has a model of that name."""
    return f"zoo_{name}" if is_model(name) else name


def register() -> None:
    """Register every entry of the zoo, and the name that model folders have."""
    published = {timm_name(name): name for name in list_models()}
    cfgs = {ours: PretrainedCfg(**pretrained_cfg(load_spec(name))) for ours, name in published.items()}
    default_cfgs.update(generate_default_cfgs(cfgs))
    for ours, name in published.items():
        register_model(_entry_point(ours, name))
    register_model(scalenet_zoo)


def scalenet_zoo(
    pretrained: bool = False,
    pretrained_cfg: Mapping[str, Any] | None = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: str | Path | None = None,
    **kwargs: Any,  # noqa: ANN401 - timm's protocol
) -> nn.Module:
    """Build the network of a model folder, for timm, which says in `pretrained_cfg` where it is."""
    _refuse(TIMM_ENTRY, pretrained_cfg_overlay=pretrained_cfg_overlay, model_args=kwargs.get("pretrained_model_args"))
    place = pretrained_cfg or {}
    if place.get("source") == "hf-hub":
        from scalenet_zoo.zoo.hub import fetch_folder

        folder = fetch_folder(place["hf_hub_id"], with_weights=pretrained, cache_dir=cache_dir)
    elif place.get("source") == "local-dir":
        folder = read_folder(place["file"])
    else:
        raise TypeError(
            f"{TIMM_ENTRY}: found no folder, expected hf-hub:org/name or local-dir:path as the model's name"
        )
    if pretrained:
        return create_model(folder, **kwargs)
    model = create_model(folder.spec, **kwargs)
    model.pretrained_cfg = model.default_cfg = folder.interface.to_timm(spec_of(model))  # type: ignore[assignment]
    return model


def _entry_point(published: str, name: str) -> Callable[..., nn.Module]:
    def entry_point(
        pretrained: bool = False,
        pretrained_cfg: object = None,
        pretrained_cfg_overlay: object = None,
        cache_dir: object = None,
        **kwargs: Any,  # noqa: ANN401 - timm's protocol
    ) -> nn.Module:
        _refuse(
            published,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            cache_dir=cache_dir,
        )
        return create_model(name, pretrained=pretrained, **kwargs)

    entry_point.__name__ = published
    entry_point.__module__ = __name__
    return entry_point


def _refuse(published: str, **options: object) -> None:
    for option, value in options.items():
        if value is not None:
            raise TypeError(f"{published}: {option} is not supported, expected none")
