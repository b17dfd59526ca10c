"""Latency in int8: networks quantised for a back end, their terms in a model, and budgets in int8."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from scalenet_zoo import building
from scalenet_zoo.arch.scaling import expand
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.building import build_files
from scalenet_zoo.core.backends import Precision, find_backend
from scalenet_zoo.core.errors import InputError, UsageError
from scalenet_zoo.core.timing import Timing
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.latency import budget as latency_budget
from scalenet_zoo.latency import measuring, profile, yardstick
from scalenet_zoo.latency.budget import LatencyChoice, search_at_latency
from scalenet_zoo.latency.cases import measure_cases, plan
from scalenet_zoo.latency.items import draw_items
from scalenet_zoo.latency.measuring import measure_items
from scalenet_zoo.latency.model import LatencyModel, fit_latency_model, model_path
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.precisions import QUANTISED_ON, check_precision
from scalenet_zoo.latency.profile import Profile, Settings, load_profile
from scalenet_zoo.latency.runners import open_runner
from scalenet_zoo.latency.terms import INT8_TERMS, TERMS, trace_terms
from scalenet_zoo.latency.yardstick import Visit
from tests.helpers.command import Run
from tests.helpers.latency import RESULTS, SCALENET, SETTINGS, law, made_up_profile
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS

INT8 = SETTINGS.model_copy(update={"precision": "int8"})
FEW = Plan(layers=0, networks=4, held_out=2)


@pytest.fixture(scope="module")
def made_up() -> LatencyModel:
    return fit_latency_model(made_up_profile(precision="int8"))


# --- which back ends ------------------------------------------------------------------------------


def test_int8_is_timed_where_networks_are_quantised() -> None:
    for backend in QUANTISED_ON:
        assert check_precision("int8", backend) == "int8"
    for backend in ("torch", "ort-cuda", "tensorrt"):
        assert check_precision("fp16", backend) == "fp16"
        with pytest.raises(UsageError, match=f"`precision`: found int8 for a network on {backend}, expected it on ort"):
            check_precision("int8", backend)
    with pytest.raises(UsageError, match="`precision`: found 'fp8', expected fp32, fp16 or int8"):
        check_precision("fp8", "ort-cpu")


@pytest.mark.parametrize("backend", QUANTISED_ON)
def test_a_network_runs_in_int8(backend: str) -> None:
    if not find_backend(backend).ready:
        pytest.skip(find_backend(backend).about)
    network = random_model(SPECS["classification"]).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = network(images).detach().numpy()
    with open_runner(network, images, backend, 1, "int8") as runner:
        found = runner()
        assert runner.lap() > 0
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.3  # it is rounded, and still the network


def test_ranges_do_not_change_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[onnx.ModelProto] = []
    real = onnxruntime.InferenceSession

    def session(graph: bytes, *arguments: Any, **keywords: Any) -> Any:
        opened = real(graph, *arguments, **keywords)
        if opened.get_inputs()[0].name == "image" and len(opened.get_outputs()) == 1:
            graphs.append(onnx.load_model_from_string(graph) if isinstance(graph, bytes) else onnx.ModelProto())
        return opened

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    network = random_model(SPECS["classification"])
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    operators = []
    for images in (noise, 30 * noise + 5):
        with open_runner(network, images, "ort-cpu", 1, "int8"):
            operators.append([node.op_type for node in graphs[-1].graph.node])
    assert operators[0] == operators[1]
    assert operators[0].count("QuantizeLinear") > 10


def test_a_network_that_no_back_end_quantises_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="`precision`: found int8 for a network on torch, expected it on ort-cpu or op"),
        open_runner(nn.Conv2d(3, 3, 1), torch.randn(1, 3, 8, 8), "torch", precision="int8"),
    ):
        pass


def test_a_network_is_benchmarked_in_both() -> None:
    (cases,) = plan([SPECS["classification"]], ["ort-cpu"], precisions=["fp32", "int8"])
    found = measure_cases(cases, threads=1, timing=Timing(0, 0, 2, 1))
    assert [(each.precision, each.backend) for each in found] == [("fp32", "ort-cpu"), ("int8", "ort-cpu")]
    assert found[1].ratio.median == pytest.approx(found[1].latency.median / found[0].latency.median)


# --- models ---------------------------------------------------------------------------------------


def test_a_law_of_int8_is_recovered(made_up: LatencyModel) -> None:
    assert made_up.terms == INT8_TERMS
    assert made_up.held_out.within_5 == 1.0
    for spec in expand(SCALENET)[:3]:
        truth = float(law(trace_terms(spec.trace, "int8"), "int8"))
        assert made_up.predict_spec(spec) == pytest.approx(truth, rel=0.05)


def test_terms_are_those_of_the_precision(made_up: LatencyModel) -> None:
    with pytest.raises(ValueError, match="terms: found another version's"):
        LatencyModel.model_validate(made_up.model_dump() | {"settings": SETTINGS.model_dump()})
    with pytest.raises(
        InputError, match="profile: terms: found another version's, expected this version's: profile again"
    ):
        fit_latency_model(made_up_profile(plan=FEW).model_copy(update={"settings": INT8}))


def test_each_precision_has_its_own_model_file() -> None:
    assert model_path(INT8) != model_path(SETTINGS)


def test_a_profile_from_before_int8_gives_the_committed_model() -> None:
    model = LatencyModel.load(RESULTS / "latency_model_ort_cpu.json")
    assert (model.settings.precision, model.terms) == ("fp32", TERMS)
    again = fit_latency_model(Profile.load(RESULTS / "latency_model_ort_cpu.profile.json"))
    assert again.held_out.model_dump() == pytest.approx(model.held_out.model_dump(), rel=1e-6)
    spec = expand(SCALENET)[0]
    assert again.predict_spec(spec) == pytest.approx(model.predict_spec(spec), rel=1e-6)


@pytest.mark.slow
def test_a_profile_is_measured_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "VISITS", 1)
    monkeypatch.setattr(yardstick, "QUIET", math.inf)  # on a busy machine too
    monkeypatch.setattr(yardstick, "SECONDS", 0.01)
    monkeypatch.setattr(yardstick, "REST", 0.0)
    tiny = SPECS["classification"]

    def draw(rng: np.random.Generator) -> ArchSpec:
        return tiny.replace(height=int(8 * rng.integers(4, 9)), width=32)

    items, path = draw_items(draw, FEW), tmp_path / "p.json"
    measured = measure_items(items, tiny, INT8, FEW, path)
    assert measured.terms == INT8_TERMS
    assert [each.terms for each in measured.measurements] == [tuple(item.terms("int8")) for item in items]
    assert load_profile(path, INT8, FEW) == measured
    with pytest.raises(InputError, match=r"p.json: settings: found another run's, expected this run's"):
        load_profile(path, SETTINGS, FEW)
    model = fit_latency_model(measured)
    assert 0 < model.predict_spec(tiny) < 1000
    assert model.settings.conditions.startswith("ort-cpu, int8, batch of 1, 1 CPU thread, ")


# --- budgets --------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions requested from a fake back end, on which networks take the made-up machine's time in int8."""
    precisions: list[str] = []

    class FakeYardstick:
        best = 1.0

        def visit(self, ms: float, visits: int) -> list[Visit]:
            return [Visit(ms, 1.0, 1.0)] * visits

    @contextmanager
    def fake_prepare(model: Any, images: object, backend: str, threads: int, precision: Precision) -> Iterator[float]:
        precisions.append(precision)
        yield float(law(trace_terms(model.spec.trace, "int8"), "int8"))

    @contextmanager
    def fake_yardstick(*_: object, **__: object) -> Iterator[FakeYardstick]:
        yield FakeYardstick()

    monkeypatch.setattr(latency_budget, "open_runner", fake_prepare)
    monkeypatch.setattr(latency_budget, "prepare_yardstick", fake_yardstick)
    return precisions


def test_a_budget_is_met_in_int8_and_says_so(made_up: LatencyModel, asked: list[str]) -> None:
    taken = search_at_latency(10.0, SCALENET, made_up).taken
    assert set(asked) == {"int8"}
    assert 9.5 < taken.measured <= 10.0
    assert taken.spec.name == "scalenet_10ms_ort-cpu_int8"
    assert taken.spec.provenance.details["latency"] == {
        "backend": "ort-cpu",
        "precision": "int8",
        "threads": 1,
        "batch": 1,
        "budget_ms": 10.0,
        "predicted_ms": taken.predicted,
        "device": profile.device_name("ort-cpu"),
    }
    assert taken.spec.provenance.results[-1].data.startswith("ort-cpu, int8, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8", "--export", "onnx"], "found --export and --precision int8 without --calibration"),
        (["--calibration", "photos"], "found --calibration without --latency and --precision int8, expected it"),
        (["--precision", "int8", "--calibration", "nowhere"], "nowhere: found no such folder"),
        (
            ["--precision", "int8", "--on", "torch"],
            "--precision: found int8 for a network on torch, expected it on ort",
        ),
    ],
)
def test_build_in_int8_refuses(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    code, found = run.error("build", "--latency", "4ms", "--on", "ort-cpu", *arguments)
    assert code in (1, 2)
    assert message in found
    assert list(tmp_path.iterdir()) == []


def test_what_was_measured_in_int8_is_exported_in_int8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    attempt = latency_budget.Attempt(SPECS["classification"], 1.0, 1.0, (1.0,), 1)
    monkeypatch.setattr(building, "find_at_latency", lambda *_: LatencyChoice((attempt,), INT8))
    build = {"latency": "4ms", "on": "ort-cpu", "precision": "int8"}
    without = build_files(output=tmp_path / "without", **build)  # type: ignore[arg-type]
    assert sorted(without.files) == ["spec", "weights"]
    photos = sample_photographs()[0].parent
    built = build_files(output=tmp_path, calibration=photos, **build)  # type: ignore[arg-type]
    options = Metadata.read(built.files["onnx"]).options
    assert (options.precision, options.target) == ("int8", "ort-cpu")
    assert built.verification is not None
    assert built.gain is not None
    assert (built.gain.backend, built.gain.precision) == ("ort-cpu", "int8")


def test_settings_take_int8() -> None:
    assert Settings(family="x", backend="ort-cpu", threads=1, precision="int8").place == "ort-cpu_int8"
    assert Settings(family="x", backend="ort-cpu", threads=1).place == "ort-cpu"
