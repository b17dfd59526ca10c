"""A supernet that begins with the weights of a trained network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scalenet_zoo import ArchSpec, create_model
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.core.errors import ZooError
from scalenet_zoo.search.methods import load_config
from scalenet_zoo.spaces.scalenet import Scaling, Space
from scalenet_zoo.supernet.loop import interface_of
from scalenet_zoo.supernet.scalenet.inheritance import inherit_supernet
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.settings import ScaleNetSettings
from scalenet_zoo.supernet.scalenet.train import ScaleNetTrainer
from scalenet_zoo.training.loop import LoopOptions
from scalenet_zoo.zoo.channel_groups import channel_groups, importance
from scalenet_zoo.zoo.model_folder import save_model
from tests.helpers.networks import random_model
from tests.helpers.search_config import CONFIG, write_config
from tests.helpers.shapes import Shapes
from tests.helpers.spaces import TINY

LABELS = Labels(names=("circle", "square", "star"))
BASE = [[3], [3, 5], [5, 3]]
WIDER = Scaling(1, 1.0, 1.2, 32)


def source_spec() -> ArchSpec:
    """A network of the space, wider than its base model and narrower than its largest."""
    return TINY.spec(TINY.to_array(BASE), WIDER, 3, "source")


@pytest.fixture(scope="module")
def source() -> nn.Module:
    network: Any = random_model(source_spec())
    network.pretrained_cfg |= {"labels": LABELS.to_cfg(), "mean": [0.1, 0.2, 0.3], "std": (0.4, 0.5, 0.6)}
    return network.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(source: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "model"
    save_model(source, path)
    return path


@pytest.fixture(scope="module")
def supernet(folder: Path) -> ScaleNetSupernet:
    torch.manual_seed(1)
    supernet = ScaleNetSupernet(TINY, 3).eval()
    inherit_supernet(supernet, str(folder), LABELS)
    return supernet


def outputs(network: nn.Module) -> torch.Tensor:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        result: torch.Tensor = network.eval()(images)
    return result


@pytest.mark.parametrize(
    ("kernels", "scaling"),
    [
        (BASE, WIDER),  # the source's own place
        (BASE, Scaling(2, 1.0, 1.5, 32)),  # wider
        (BASE, Scaling(2, 2.0, 1.5, 32)),  # deeper, too: stages of two layers have four
        ([[5], [7, 5], [5, 5]], Scaling(2, 1.4, 1.3, 32)),  # and with larger kernels
        ([[3], [3, 5], [5, 3, 3]], WIDER),  # another base model with a layer more
    ],
)
def test_networks_that_contain_the_source_compute_what_it_does(
    kernels: list[list[int]], scaling: Scaling, supernet: ScaleNetSupernet, source: nn.Module
) -> None:
    expected = outputs(source)
    spec = TINY.spec(TINY.to_array(kernels), scaling, 3, "larger")
    found = outputs(supernet.extract(spec))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_narrow_networks_have_the_most_important_channels(supernet: ScaleNetSupernet, source: nn.Module) -> None:
    """The head's are told apart by their weights; the residual stream's by the classifier that they lead to."""
    groups = channel_groups(source_spec())
    state = {name: tensor.detach() for name, tensor in source.state_dict().items()}
    for group, module in (
        (("head",), "head.norm"),
        (("stem",), "stem.norm"),
        (("stream", 1, 0), "stages.1.0.project.norm"),
    ):
        order = importance(groups, group, state).argsort(descending=True, stable=True)
        expected = state[f"{module}.weight"][order]
        base = supernet.extract(TINY.spec(TINY.to_array(BASE), TINY.unscaled, 3, "base"))
        found = base.state_dict()[f"{module}.weight"]
        assert len(found) <= len(expected)
        torch.testing.assert_close(found, expected[: len(found)])


def test_classes_are_the_sources_by_name(folder: Path, source: nn.Module) -> None:
    torch.manual_seed(1)
    supernet = ScaleNetSupernet(TINY, 3)
    before = supernet.classifier.weight.detach().clone()
    inherit_supernet(supernet, str(folder), Labels(names=("star", "triangle", "circle")))
    expected, found = outputs(source), outputs(supernet.extract(source_spec()))
    torch.testing.assert_close(found[:, [0, 2]], expected[:, [2, 0]], rtol=0, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(supernet.classifier.weight[1], before[1])  # nothing is known of triangles


def trainer(folder: Path, run: Path, **values: Any) -> ScaleNetTrainer:
    recipe: dict[str, Any] = {"epochs": 1, "batch_size": 8, "lr": 0.01, "hflip": 0.0}
    settings = ScaleNetSettings(inherit=str(folder), recipe=recipe, **values)
    torch.manual_seed(0)
    supernet = ScaleNetSupernet(TINY, 3)
    data = Shapes("classification", 40)
    return ScaleNetTrainer(supernet, settings, data, run, LoopOptions(workers=0, cpu=True))


def test_training_begins_there_and_stays_on_the_left(folder: Path, tmp_path: Path) -> None:
    source: Any = create_model(folder)
    one = trainer(folder, tmp_path / "run")
    assert one.load() is None
    alone = one.supernet.extract(source_spec()).cpu()
    for network in (alone, source):  # of other classes; features are the same but for their order
        network.dropout, network.classifier = nn.Identity(), nn.Identity()
    torch.testing.assert_close(outputs(alone).sort().values, outputs(source).sort().values, rtol=0, atol=1e-5)
    for one.step in (0, 1):
        one.activate(source_spec())
        assert all(part.start == 0 for window in one.supernet.windows for part in window.index)
    assert interface_of(one.settings, source_spec()).mean == (0.1, 0.2, 0.3)  # images are prepared as for the source


def test_a_trained_supernet_resumes(folder: Path, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(folder, tmp_path / "run").run(stop)
    whole = trainer(folder, tmp_path / "whole").run(lambda what, done, total: None)
    again = trainer(folder, tmp_path / "run").run(lambda what, done, total: None)
    assert whole.weights_sha256 == again.weights_sha256


def test_a_search_from_a_trained_network(folder: Path, tmp_path: Path) -> None:
    """The whole search, with images prepared as for the source, and one path per network."""
    from scalenet_zoo.search.run_search import extract_found, run_search

    supernet = {**CONFIG["supernet"], "inherit": str(folder), "sampler": "sandwich"}
    config = write_config(tmp_path, supernet=supernet, baselines=[])
    assert load_config(config).scoring.paths == "single"  # type: ignore[attr-defined]
    run_search(config, tmp_path / "run", workers=0, cpu=True)
    found = extract_found(tmp_path / "run", "toy_s1", tmp_path / "model", workers=0, cpu=True)
    network: Any = create_model(tmp_path / "model")
    assert network.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert len(network.pretrained_cfg["labels"]["names"]) == 10
    assert 0 <= found.score <= 1


@pytest.mark.parametrize(
    ("supernet", "scoring", "complaint"),
    [
        ({"inherit": "scalenet_s0"}, {}, "inherit: found scalenet_s0, which has no published weights"),
        ({"inherit": "hrnet_w18"}, {}, "found the source hrnet_w18, a multipath network for segmentation"),
        ({"inherit": "no_such_net"}, {}, "no_such_net: found no such entry"),
        ({"inherit": "efficientnet_b0", "sides": "both"}, {}, "found both with inherit, expected left"),
        ({"sides": "left"}, {"paths": "both"}, "scoring: paths: found both, expected single"),
        ({"sides": "right"}, {}, "supernet.sides: found 'right', expected 'both' or 'left'"),
    ],
)
def test_settings_that_do_not_fit_together_are_one_line(
    supernet: dict[str, Any], scoring: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path,
        supernet={**CONFIG["supernet"], **supernet},
        scoring={**CONFIG["scoring"], **scoring},
    )
    with pytest.raises(ZooError) as caught:
        load_config(config).check()
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_from_scratch_is_identified_as_before() -> None:
    """So runs of earlier versions resume: settings at their defaults are not written."""
    assert ScaleNetSettings().model_dump(mode="json").keys() == {
        *("processes", "recipe", "sampler", "stage_probabilities", "resolution")
    }
    assert Space.model_validate(TINY.model_dump()).hash == TINY.hash
    assert not {"padding", "norm_eps", "scales_stem"} & TINY.model_dump(mode="json").keys()
