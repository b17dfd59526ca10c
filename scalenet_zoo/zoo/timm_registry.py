"""The zoo's names in timm's registry; `scalenet_zoo/__init__.py` arranges that `register` runs once timm is imported.

The registry has one more name, `scalenet_zoo`: the architecture of every model folder, which
`timm.create_model("hf-hub:org/name")` and `"local-dir:path"` find in config.json. This module then reads the folder
itself, because timm would also load weights from pickles.

Only this module knows timm's arguments for features, `feature_cls` and `feature_cfg`; elsewhere `features_only` is
enough.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model
from timm.models._features import FeatureDictNet, FeatureGetterNet, FeatureHookNet, FeatureListNet
from timm.models._features_fx import FeatureGraphNet
from torch import nn

from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.zoo.catalog import list_models
from scalenet_zoo.zoo.create import create_model
from scalenet_zoo.zoo.interface import pretrained_cfg
from scalenet_zoo.zoo.model_folder import TIMM_ENTRY, read_folder
from scalenet_zoo.zoo.published import published_entries
from scalenet_zoo.zoo.sources import NetworkSource, load_spec

default_cfgs: dict[str, Any] = {}  # timm looks this up by name in the module of an entry point

FEATURE_CLASSES: Mapping[str, type[nn.Module]] = {
    "getter": FeatureGetterNet,
    "hook": FeatureHookNet,
    "list": FeatureListNet,
    "dict": FeatureDictNet,
    "fx": FeatureGraphNet,
}
"""Timm's ways to extract features from a network, by timm's names; the first calls `forward_intermediates`."""


def timm_name(name: str) -> str:
    """Return an entry's name in timm: its own name, with the prefix `zoo_` if timm has a model of that name."""
    return f"zoo_{name}" if is_model(name) else name


def register() -> None:
    """Register every entry of the zoo with the tags of its published weights, and the architecture of model folders."""
    names = {timm_name(name): name for name in list_models()}
    cfgs: dict[str, PretrainedCfg] = {}
    for ours, name in names.items():
        entry = published_entries().get(name)
        tags = [f".{tag}" for tag in entry.tags] if entry else [""]  # the first is the default, for timm and for us
        cfgs |= {f"{ours}{tag}": PretrainedCfg(**pretrained_cfg(load_spec(f"{name}{tag}"))) for tag in tags}
    default_cfgs.update(generate_default_cfgs(cfgs))
    for ours, name in names.items():
        register_model(_entry_point(ours, name))
    register_model(scalenet_zoo)


def scalenet_zoo(
    pretrained: bool = False,
    pretrained_cfg: Mapping[str, Any] | None = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: str | Path | None = None,
    **kwargs: Any,  # noqa: ANN401 - timm's protocol
) -> nn.Module:
    """Build the network of a model folder, whose location timm passes in `pretrained_cfg`.

    Args:
        pretrained: load the weights of the folder.
        pretrained_cfg: timm's description of the folder: `source` and `hf_hub_id` or `file`.
        pretrained_cfg_overlay: not supported.
        cache_dir: the Hub's cache; None: the client's.
        **kwargs: further arguments of `create_model`.

    Raises:
        TypeError: no folder is given, or an argument is not supported.
        ZooError: as for `create_model`.
    """
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
        return _create(folder, **kwargs)
    model = _create(folder.spec, **kwargs)
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
        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else ""  # timm's create_model splits it off the name
        _refuse(
            published,
            pretrained_cfg=None if tag else pretrained_cfg,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            cache_dir=cache_dir,
        )
        return _create(f"{name}.{tag}" if tag else name, pretrained=pretrained, **kwargs)

    entry_point.__name__ = published
    entry_point.__module__ = __name__
    return entry_point


def _create(
    source: NetworkSource,
    features_only: bool = False,
    feature_cls: str | type[nn.Module] | None = None,
    feature_cfg: Mapping[str, Any] | None = None,
    **kwargs: Any,  # noqa: ANN401 - as `create_model`
) -> nn.Module:
    """Call `create_model`, with timm's arguments for features.

    Args:
        source: as for `create_model`.
        features_only: as for `create_model`.
        feature_cls: the class of timm that extracts the features; None: the one in `feature_cfg`, or "getter".
        feature_cfg: further arguments of that class.
        **kwargs: further arguments of `create_model`.

    Raises:
        SpecError: timm has no such class, or the class cannot split the network.
    """
    if not features_only:
        return create_model(source, **kwargs)
    options = {**(feature_cfg or {}), **({"out_indices": kwargs.pop("out_indices")} if "out_indices" in kwargs else {})}
    stated = options.pop("feature_cls", None)
    wrapper = _feature_class(feature_cls or stated or "getter")
    if wrapper is FeatureGetterNet and not options.keys() - {"out_indices"}:
        return create_model(source, features_only=True, **options, **kwargs)
    from scalenet_zoo.networks.layers import take_indices

    model: Any = create_model(source, **kwargs)
    spec, cfg = model.spec, model.pretrained_cfg
    if wrapper is not FeatureGetterNet and spec.network.type != "mbconv":
        raise SpecError(f"feature_cls: found {wrapper.__name__}, expected getter: no module of {spec.name} is a branch")
    options["out_indices"] = take_indices(len(model.feature_info), options.get("out_indices"))
    if issubclass(wrapper, FeatureDictNet):
        options.setdefault("flatten_sequential", True)  # one module per stage; timm's default joins all stages
    features: nn.Module = wrapper(model, **options)
    features.spec = spec
    features.pretrained_cfg = features.default_cfg = cfg
    return features


def _feature_class(wanted: str | type[nn.Module]) -> type[nn.Module]:
    """Return the class with a name, or the class itself."""
    found = FEATURE_CLASSES.get(wanted.lower()) if isinstance(wanted, str) else wanted
    if found is None or found not in FEATURE_CLASSES.values():
        raise SpecError(f"feature_cls: found {quoted(wanted)}, expected one of {', '.join(FEATURE_CLASSES)}")
    return found


def _refuse(published: str, **options: object) -> None:
    for option, value in options.items():
        if value is not None:
            raise TypeError(f"{published}: {option} is not supported, expected none")
