"""Searches whose latency is limited in int8: the model has the terms of int8, for networks of either method."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenet_zoo import run_search
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.errors import SpecError, UsageError
from scalenet_zoo.latency.items import draw_items
from scalenet_zoo.latency.model import LatencyModel
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Profile
from scalenet_zoo.latency.terms import INT8_TERMS
from scalenet_zoo.latency.yardstick import Visit
from scalenet_zoo.search.measured_latency import LatencyMeter
from scalenet_zoo.search.method import Method
from scalenet_zoo.search.scalenas.config import ScaleNASConfig, ScaleNASLatency
from scalenet_zoo.search.scalenas.limits import TopologyLimits, TopologyPopulation, TopologyPredictor
from scalenet_zoo.search.scalenas.method import ScaleNASMethod
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.method import ScaleNetMethod
from scalenet_zoo.search.settings import LatencySettings
from scalenet_zoo.spaces.candidates import Candidate
from tests.helpers.command import Run
from tests.helpers.search_config import HERE, write_config
from tests.helpers.spaces import TINY
from tests.helpers.topologies import SPACE

PLAN = Plan(layers=2, networks=5, held_out=2)
LABELS = Labels(names=("a", "b", "c"))


def fitted(method: Method[Any], folder: Path) -> LatencyModel:
    """The model of a search on a made-up machine: nothing is measured."""
    meter = LatencyMeter(method, folder)
    settings = meter.profile_settings
    weights = np.random.default_rng(0).uniform(1e-6, 2e-6, len(INT8_TERMS))
    items = draw_items(method.draw, PLAN)
    measured = tuple(item.measured("int8", [Visit(float(weights @ item.terms("int8")), 1.0, 1.0)]) for item in items)
    made = Profile(settings=settings, plan=PLAN, machine=machine(), terms=INT8_TERMS, measurements=measured)
    made.save(folder / "profile.json")
    model = meter.model()
    assert (model.settings.precision, model.terms) == ("int8", INT8_TERMS)
    return model


def test_base_models_are_predicted_in_int8(tmp_path: Path) -> None:
    config = ScaleNetConfig(
        name="x",
        data="none",
        space=TINY.model_dump(mode="json"),
        limits=Limits(latency=("10s",), backend="none", threads=1),
        latency=LatencySettings(profile=PLAN, precision="int8"),
    )
    method = ScaleNetMethod(config, LABELS)
    model = fitted(method, tmp_path)
    bounds = Bounds(TINY, 3, Limits(latency=("10s",), backend="none", growth=None), model)
    bases = TINY.sample(np.random.default_rng(0), 3)
    keys = [Candidate(base, scaling).key for base in bases for scaling in (TINY.unscaled, TINY.scalings(1)[0])]
    expected = [model.predict_spec(method.spec(key)) for key in keys]
    np.testing.assert_allclose(bounds.predict(keys), expected, rtol=1e-9)


def test_topologies_are_predicted_in_int8(tmp_path: Path) -> None:
    config = ScaleNASConfig(
        name="x",
        method="scalenas",
        data="none",
        space=SPACE.model_dump(mode="json"),
        limits=TopologyLimits(latency="10s", backend="none", threads=1),
        latency=ScaleNASLatency(profile=PLAN, precision="int8"),
    )
    method = ScaleNASMethod(config, LABELS)
    model = fitted(method, tmp_path)
    topologies = SPACE.sample(np.random.default_rng(0), 4)
    predicted = TopologyPredictor(model).predict(TopologyPopulation(SPACE, topologies, len(LABELS.names)))
    expected = [model.predict_spec(method.spec(key)) for key in SPACE.keys(topologies)]
    np.testing.assert_allclose(predicted, expected, rtol=1e-9)


def test_a_search_refuses_int8_where_it_is_not_timed(tmp_path: Path) -> None:
    config = write_config(tmp_path, limits={"latency": "1ms", "backend": "torch"})
    with pytest.raises(UsageError, match="`precision`: found int8 for a network on torch, expected it on ort-cpu or"):
        run_search(config, tmp_path / "run", precision="int8")
    with pytest.raises(SpecError, match=r"latency.precision: found .*fp8"):
        run_search(config, tmp_path / "run", precision="fp8")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.yaml"]


def test_the_command_takes_a_precision(run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    code, message = run.error("search", config, "--latency", "1ms", "--on", "torch", "--precision", "int8", *HERE)
    assert (code, message) == (
        2,
        "Invalid value: --precision: found int8 for a network on torch, expected it on ort-cpu or openvino",
    )
    code, message = run.error("supernet", "extract", tmp_path, "--flops", "2M", "--precision", "int8")
    assert code == 2
    assert "found --latency, --on, --threads or --precision, expected --latency and --on together" in message
