"""The terms of latency models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet_zoo import list_models
from scalenet_zoo.arch.multipath_cost import BRANCHES
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.spec import FUSION_STEPS, ArchSpec, MBConvNetwork
from scalenet_zoo.arch.trace import trace_layers
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.latency.terms import INT8_TERMS, TERMS, multipath_terms, population_terms, trace_terms
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.zoo.sources import load_spec
from tests.helpers.random_specs import HEADS, mbconv_specs, multipath_specs, populations

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@settings(max_examples=40)
@given(populations(), st.sampled_from(PRECISIONS))
def test_terms_of_a_population_are_those_of_its_networks(
    drawn: tuple[Population, list[list[ArchSpec]]], precision: Precision
) -> None:
    population, members = drawn
    expected = np.array([[trace_terms(spec.trace, precision) for spec in scaled] for scaled in members])
    np.testing.assert_allclose(np.moveaxis(population_terms(population, precision), 0, -1), expected, rtol=1e-12)


def terms_of_topology(spec: ArchSpec, precision: Precision = "fp32") -> np.ndarray:
    network = spec.network
    assert network.type == "multipath"
    depth = np.zeros((1, len(network.modules), BRANCHES), dtype=int)
    fusion = np.zeros((*depth.shape, FUSION_STEPS, BRANCHES), dtype=bool)
    for m, module in enumerate(network.modules):
        branches = len(module.depth)
        depth[0, m, :branches], fusion[0, m, :branches, :, :branches] = module.depth, module.fusion
    return multipath_terms(depth, fusion, network.width, network.head, spec.input, spec.classes, precision)[:, 0]


@given(multipath_specs(HEADS), st.sampled_from(PRECISIONS))
def test_terms_of_topologies_are_those_of_their_networks(spec: ArchSpec, precision: Precision) -> None:
    expected = trace_terms(spec.trace, precision)
    np.testing.assert_allclose(terms_of_topology(spec, precision), expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("name", [*list_models(task="segmentation"), *list_models(task="pose")])
def test_terms_of_published_topologies_are_those_of_their_networks(name: str) -> None:
    spec = load_spec(name)
    np.testing.assert_allclose(terms_of_topology(spec), trace_terms(spec.trace), rtol=1e-9, atol=1e-3)


def test_topologies_are_costed_together() -> None:
    space = MultipathSpace.load("scalenas_pose")
    topologies = space.sample(np.random.default_rng(0), 5)
    together = multipath_terms(topologies.depth, topologies.fusion, space.width, space.head, space.input, 17)
    each = [trace_terms(space.spec(topologies[i], 17).trace) for i in range(5)]
    np.testing.assert_allclose(together, np.transpose(each), rtol=1e-9, atol=1e-3)


@given(st.one_of(mbconv_specs(), multipath_specs(HEADS)))
def test_terms_count_multiply_adds(spec: ArchSpec) -> None:
    terms = dict(zip(TERMS, trace_terms(spec.trace), strict=True))
    depthwise = sum(op.macs for op in spec.trace.ops if op.groups > 1)
    counted = terms["widen.macs"] + terms["narrow.macs"] + terms["dense.macs"] + terms["linear.weights"]
    assert counted + depthwise == spec.cost.macs
    assert terms["graph.calls"] == 1
    assert terms["widen.blocks"] >= terms["widen.macs"]


@given(st.one_of(mbconv_specs(), multipath_specs(HEADS)))
def test_int8_has_the_terms_of_fp32_and_more(spec: ArchSpec) -> None:
    terms = dict(zip(INT8_TERMS, trace_terms(spec.trace, "int8"), strict=True))
    assert [terms.pop(term) for term in TERMS] == list(trace_terms(spec.trace, "fp32"))
    shapes = spec.trace.shapes
    points, left, gated = 0, 0, 0
    for op in spec.trace.ops:
        channels, height, width = shapes[op.output]
        if op.groups > 1:
            points += op.kernel**2 * height * width
            left += op.kernel**2 * height * width * (channels % 16)
        if op.kind == "elementwise" and (1, 1) == shapes[op.inputs[1]][1:] != (height, width):
            gated += height * width
    assert terms == {"depthwise.points": points, "depthwise.left": left, "elementwise.gated": gated}


def test_terms_of_layers_add_up_to_a_network() -> None:
    spec = load_spec("scalenet_s0")
    assert isinstance(spec.network, MBConvNetwork)
    layers = [layer for stage in spec.network.stages for layer in stage]
    whole = trace_layers(layers, (32, 112, 112))
    first, rest = trace_layers(layers[:5], (32, 112, 112)), None
    rest = trace_layers(layers[5:], first.shapes[-1])
    parts = trace_terms(first) + trace_terms(rest)
    inner = np.array([not term.startswith("graph.") for term in TERMS])
    np.testing.assert_allclose(trace_terms(whole)[inner], parts[inner])
    assert whole.macs == first.macs + rest.macs
