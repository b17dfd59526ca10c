"""Published weights: tags, defaults, quoted results; and each entry computes the same as timm's model."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from scalenet_zoo import ArchSpec, create_model, list_models, load_spec
from scalenet_zoo.arch.scaling import expand
from scalenet_zoo.core.errors import ModelNotFoundError, WeightsError
from scalenet_zoo.zoo.catalog import is_entry, load_family
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.pretrained import load_pretrained
from scalenet_zoo.zoo.published import (
    PublishedEntry,
    PublishedWeights,
    QuotedResult,
    published_entries,
    published_entry,
    published_weights,
    split_tag,
)
from scalenet_zoo.zoo.sources import file_stem, has_weights, is_exported
from tests.helpers.command import Run
from tests.helpers.hub_server import Hub
from tests.helpers.networks import randomise
from tests.helpers.pretrained import TIMMS, mostly_slow, publish
from tools.timm_entries import FOLDER, ORIGINS, entry_of_timm, network_of_timm, timm_on_meta, weights_of

CLASSIFIERS = [name for name, entry in published_entries().items() if load_spec(name).task == "classification"]
TAGGED = [weights.timm for name in CLASSIFIERS for weights in published_entries()[name].weights]
RESULTS = Path(__file__).parents[3] / "shared" / "published" / "timm_imagenet.csv"


# --- what is published ----------------------------------------------------------------------------


def test_entries_with_published_weights() -> None:
    assert sorted(name for origin in ORIGINS for name in origin.names) == sorted(TIMMS)
    assert sorted(CLASSIFIERS) == sorted([*TIMMS, *(f"efficientnet_b{i}" for i in range(6))])
    assert list_models(pretrained=True) == sorted(published_entries())


@pytest.mark.parametrize("name", list(published_entries()))
def test_weights_belong_to_the_entrys_architecture(name: str) -> None:
    spec, entry = load_spec(name), published_entries()[name]
    assert (entry.name, entry.hash, entry.pixels) == (name, spec.hash, spec.input.height)
    assert published_entry(spec.replace(name="another", classes=3, height=64)) is entry


@pytest.mark.parametrize("name", TAGGED)
def test_tags_are_timms(name: str) -> None:
    weights = published_weights(load_spec(name))
    assert weights is not None
    assert weights == weights_of(name, weights.results)  # as the script reads them from timm
    theirs = timm.get_pretrained_cfg(name)
    assert (theirs.hf_hub_id, tuple(theirs.mean), tuple(theirs.std)) == (weights.repository, weights.mean, weights.std)
    # Timm measured the result at the resolution of its configuration with this crop.
    (told,) = (each for each in weights.results if each.pixels == theirs.input_size[1])
    assert (told.crop_pct, told.interpolation) == (theirs.crop_pct, theirs.interpolation)


@pytest.mark.skipif(not RESULTS.exists(), reason="timm's table is not part of the repository")
def test_every_row_of_timms_table_is_quoted() -> None:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = {(row["model"], int(row["img_size"])): float(row["top1"]) for row in csv.DictReader(file)}
    assert rows == {
        (weights.timm, result.pixels): result.top1
        for name in CLASSIFIERS
        for weights in published_entries()[name].weights
        for result in weights.results
    }


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_provenance_quotes_all_results_of_others(name: str) -> None:
    quoted = {
        (result.metric, result.value, result.data, result.origin)
        for result in load_spec(name).provenance.results
        if result.origin != "paper"
    }
    assert quoted == {
        (f"{metric} accuracy, %", value, "ImageNet-1k validation", f"timm, {weights.timm} at {result.pixels} pixels")
        for weights in published_entries()[name].weights
        for result in weights.results
        for metric, value in (("top-1", result.top1), ("top-5", result.top5))
    }


def made_up(tag: str, *results: tuple[int, float]) -> PublishedWeights:
    return PublishedWeights(
        timm=f"net.{tag}",
        repository=f"timm/net.{tag}",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        license="mit",
        results=tuple(
            QuotedResult(pixels=pixels, top1=top1, top5=99.0, crop_pct=0.9, interpolation="bicubic")
            for pixels, top1 in results
        ),
    )


@pytest.mark.parametrize(
    ("weights", "default", "tags"),
    [
        # The best near the entry's resolution, not the best of all.
        ([made_up("a_in1k", (320, 90.0), (224, 70.0)), made_up("b_in1k", (224, 71.0))], "b_in1k", ("b_in1k", "a_in1k")),
        # Weights with more data need their tag, unless there are no others.
        ([made_up("ns_jft_in1k", (224, 90.0)), made_up("in1k", (224, 70.0))], "in1k", ("in1k", "ns_jft_in1k")),
        ([made_up("in12k_ft_in1k", (224, 8.0)), made_up("in21k", (224, 9.0))], "in21k", ("in21k", "in12k_ft_in1k")),
        ([made_up("only")], "only", ("only",)),
    ],
)
def test_default_weights(weights: list[PublishedWeights], default: str, tags: tuple[str, ...]) -> None:
    entry = PublishedEntry(name="net", hash="0" * 64, pixels=224, weights=tuple(weights))
    assert (entry.default.tag, entry.tags) == (default, tags)
    assert entry.find(default) is entry.default
    assert entry.find("other") is None


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("efficientnet_b0", "ra4_e3600_r224_in1k"),
        ("efficientnet_b1", "ra4_e3600_r240_in1k"),
        ("efficientnet_b5", "sw_in12k_ft_in1k"),
        ("tf_efficientnet_b0", "ap_in1k"),
        ("tf_efficientnet_b7", "ap_in1k"),
    ],
)
def test_defaults_of_the_zoo(name: str, tag: str) -> None:
    assert published_entries()[name].default.tag == tag


# --- names with a tag -----------------------------------------------------------------------------


def test_a_tag_stays_in_the_name_and_changes_nothing_else() -> None:
    spec = load_spec("tf_efficientnet_b0.ns_jft_in1k")
    assert spec == load_spec("tf_efficientnet_b0").replace(name="tf_efficientnet_b0.ns_jft_in1k")
    assert is_entry(spec.name)
    assert not has_weights(spec.name)
    assert not is_exported(spec.name)
    assert file_stem(spec.name) == spec.name
    assert file_stem("some/efficientnet_b0.onnx") == "efficientnet_b0"


@pytest.mark.parametrize("name", ["efficientnet_b0.onnx", "efficientnet_b0.json", "efficientnet_b0", "nothing.in1k"])
def test_what_is_no_tag(name: str) -> None:
    assert is_entry(name) == (name == "efficientnet_b0")
    assert split_tag("nothing.in1k") is None


def test_unknown_tags_are_one_line_that_lists_the_others(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        load_spec("tf_efficientnet_b8.in1k")
    assert str(caught.value) == (
        "tf_efficientnet_b8.in1k: found no published weights of tf_efficientnet_b8 with the tag 'in1k', expected one of"
        " ap_in1k, ra_in1k"
    )
    with pytest.raises(WeightsError, match="^tinynet_e: tag: found 'ra_in1k', expected one of in1k$"):
        load_pretrained(create_model("tinynet_e"), "ra_in1k")
    assert hub.requests == []


def test_a_file_named_like_an_entry_is_not_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_spec("tinynet_e").replace(name="mine").save("tinynet_e.json")
    assert load_spec("tinynet_e.json").name == "mine"


def test_the_interface_is_that_of_the_tag() -> None:
    ra, ra4 = (Interface.of(load_spec(f"efficientnet_b0.{tag}")) for tag in ("ra_in1k", "ra4_e3600_r224_in1k"))
    assert ra.mean == (0.485, 0.456, 0.406)
    assert (ra.crop_pct, ra4.crop_pct) == (0.875, 0.9)
    assert ra4.mean == ra4.std == (0.5, 0.5, 0.5)
    assert Interface.of(load_spec("efficientnet_b0")) == ra4
    larger = load_spec("efficientnet_b0").replace(height=256, width=256)
    assert Interface.of(larger).crop_pct == 1.0  # the crop of the result quoted at this resolution
    assert Interface.of(load_spec("tf_efficientnet_lite4")).interpolation == "bilinear"
    cfg: Any = create_model("efficientnet_b0.ra_in1k").pretrained_cfg
    assert (cfg["hf_hub_id"], cfg["crop_pct"], cfg["mean"]) == ("timm/efficientnet_b0.ra_in1k", 0.875, ra.mean)


def test_a_tag_fetches_its_own_weights(hub: Hub) -> None:
    tags = ("ra_in1k", "ra4_e3600_r224_in1k")
    theirs: Any = [publish(hub, f"efficientnet_b0.{tag}", seed) for seed, tag in enumerate(tags)]
    stems = [model.conv_stem.weight for model in theirs]
    for name, expected in zip(("efficientnet_b0.ra_in1k", "efficientnet_b0"), stems, strict=True):
        ours: Any = create_model(name, pretrained=True)
        assert torch.equal(ours.stem.conv.weight, expected)
        assert ours.spec.name == name
    registered: Any = timm.create_model("zoo_efficientnet_b0.ra_in1k", pretrained=True)
    assert torch.equal(registered.stem.conv.weight, stems[0])
    own: Any = create_model(load_spec("efficientnet_b0").replace(name="own"))
    load_pretrained(own, "ra_in1k")
    assert torch.equal(own.stem.conv.weight, stems[0])


def test_timm_knows_our_tags() -> None:
    assert timm.get_pretrained_cfg("zoo_tf_efficientnet_b0").tag == "ap_in1k"
    assert timm.get_pretrained_cfg("zoo_efficientnet_b0.ra_in1k").hf_hub_id == "timm/efficientnet_b0.ra_in1k"
    assert len(timm.list_models("zoo_tf_efficientnet_b0.*", pretrained=True)) == 4
    with pytest.raises(ModelNotFoundError, match="with the tag 'other', expected one of ap_in1k"):
        timm.create_model("zoo_tf_efficientnet_b0.other")


def test_commands_take_and_show_tags(run: Run) -> None:
    listed = {line.split()[0]: line for line in run("list", "tf_efficientnet_b?")[1].splitlines()}
    assert "ap_in1k (+4)" in listed["tf_efficientnet_b5"]
    assert " 84.3 " in listed["tf_efficientnet_b5"]
    _, shown, _ = run("show", "efficientnet_b0.ra_in1k")
    assert "efficientnet_b0.ra_in1k: 77.7 top-1 at 224 (--pretrained)" in shown
    assert "efficientnet_b0.ra4_e3600_r224_in1k: 79.4 top-1 at 256, 78.6 top-1 at 224\n" in shown
    assert run.json("show", "efficientnet_b0.ra_in1k")["pretrained"] == "efficientnet_b0.ra_in1k"
    (entry,) = run.json("list", "efficientnet_b0")
    assert (entry["pretrained"], entry["tags"]) == (True, ["ra4_e3600_r224_in1k", "ra_in1k"])


# --- timm's networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", mostly_slow(TIMMS))
def test_entries_are_what_the_script_writes(name: str) -> None:
    entry = entry_of_timm(name, published_entries()[name].weights)
    assert entry == load_spec(name)
    assert entry.to_json() == (FOLDER / "baselines" / f"{name}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", mostly_slow(CLASSIFIERS))
def test_timms_models_cost_what_the_entries_say(name: str) -> None:
    spec, theirs = load_spec(name), timm_on_meta(name).eval()
    assert sum(parameter.numel() for parameter in theirs.parameters()) == spec.cost.params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.zeros(1, 3, spec.input.height, spec.input.width, device="meta"))
    assert counter.get_total_flops() == 2 * spec.cost.macs


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mobilenetv3_small_050", r"activation: found \['hard_swish', 'relu'\], expected the same one"),
        ("mixnet_s", r"activation: found \['relu', 'swish'\]"),
        ("efficientnet_em", "found a EdgeResidual, expected layers that expand"),
    ],
)
def test_what_the_format_has_no_word_for_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        network_of_timm(timm_on_meta(name))


@pytest.mark.parametrize("name", mostly_slow(CLASSIFIERS))
def test_entries_compute_what_timms_models_do(hub: Hub, name: str) -> None:
    theirs: Any = publish(hub, name)
    ours: Any = create_model(name, pretrained=True).eval()
    assert len(ours.state_dict()) == len(theirs.state_dict())
    for height, width in ((64, 64), (75, 53)):  # an odd size tells paddings apart
        x = torch.randn(2, 3, height, width)
        with torch.no_grad():
            assert torch.equal(ours(x), theirs(x))


def test_padding_and_epsilon_matter_for_the_comparison() -> None:
    """Without TensorFlow's differences the outputs differ, so the comparison detects them."""
    spec = load_spec("tf_efficientnet_lite0")
    reference = randomise(create_model(spec)).eval()
    x = torch.randn(1, 3, 64, 64)
    for change in ({"padding": "symmetric"}, {"norm_eps": 1e-5}):
        network = spec.network.model_copy(update=change)
        other = create_model(ArchSpec.create("other", spec.task, spec.input, spec.classes, network, spec.provenance))
        other.load_state_dict(reference.state_dict())
        with torch.no_grad():
            assert not torch.equal(other.eval()(x), reference(x))


def test_the_lite_family_is_its_entries() -> None:
    family = load_family("efficientnet_lite")
    specs = expand(family)
    assert [spec.name for spec in specs] == [f"tf_efficientnet_lite{i}" for i in range(5)]
    for spec in specs:
        entry = load_spec(spec.name)
        assert (spec.network, spec.input, spec.cost, spec.classes) == (
            entry.network,
            entry.input,
            entry.cost,
            entry.classes,
        )


def test_the_lite_family_at_a_budget(run: Run) -> None:
    built = run.json("build", "--flops", "600M", "--family", "efficientnet_lite")
    spec = ArchSpec.from_dict(json.loads(Path(built["files"]["spec"]).read_text()), "spec")
    assert 0.97 * 600e6 <= spec.cost.macs <= 600e6
    network = load_spec("tf_efficientnet_lite0").network
    assert network.type == spec.network.type == "mbconv"
    assert (spec.network.stem, spec.network.head) == (network.stem, network.head)
    assert [len(spec.network.stages[i]) for i in (0, -1)] == [1, 1]
    assert (spec.network.activation, spec.network.padding, spec.network.norm_eps) == ("relu6", "same", 1e-3)
