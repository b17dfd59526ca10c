"""Spaces of multipath networks: the published masks, genomes, sampling by group, costs, files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from scalenet_zoo import list_models, load_spec
from scalenet_zoo.arch.multipath_cost import multipath_cost
from scalenet_zoo.arch.spec import ArchSpec, Input, Module, MultipathNetwork
from scalenet_zoo.arch.trace import trace
from scalenet_zoo.core.errors import BudgetError, InputError, SpecError
from scalenet_zoo.search.scalenas.topology import cross, mutate
from scalenet_zoo.spaces.scalenas import Group, MultipathSpace, Topologies
from tests.helpers.random_specs import HEADS, multipath_specs

SEGMENTATION, POSE = (MultipathSpace.load(f"scalenas_{head}") for head in ("segmentation", "pose"))
PUBLISHED = [name for name in list_models() if name.startswith("scalenas_")]
spaces = pytest.mark.parametrize("space", [SEGMENTATION, POSE], ids=["segmentation", "pose"])
seeds = st.integers(0, 2**32)


def changed(space: MultipathSpace, **values: Any) -> MultipathSpace:
    return MultipathSpace.from_values(space.model_dump(mode="json") | values, "changed")


def space_of(spec: ArchSpec) -> MultipathSpace:
    assert isinstance(spec.network, MultipathNetwork)
    space = SEGMENTATION if spec.task == "segmentation" else POSE
    return changed(space, width=spec.network.width, input=spec.input.model_dump())


def topology_of(spec: ArchSpec) -> Topologies:
    assert isinstance(spec.network, MultipathNetwork)
    return space_of(spec).from_modules(spec.network.modules)


def assert_same(found: Topologies, expected: Topologies) -> None:
    np.testing.assert_array_equal(found.depth, expected.depth)
    np.testing.assert_array_equal(found.fusion, expected.fusion)


def assert_valid(space: MultipathSpace, topologies: Topologies) -> None:
    """Valid by the space's own rule and as specs, which check their masks themselves."""
    assert_same(space.canonical(topologies.depth, topologies.fusion), topologies)
    assert_same(space.decode(space.encode(topologies)), topologies)
    for i in range(len(topologies)):
        assert_same(space.from_modules(space.spec(topologies[i], 17).network.modules), topologies[i])  # type: ignore[union-attr]


# --- published architectures ----------------------------------------------------------------------


def test_there_are_eight_of_them() -> None:
    assert len(PUBLISHED) == 8


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_masks_are_of_the_space_as_they_are(name: str) -> None:
    spec = load_spec(name)
    space, topology = space_of(spec), topology_of(spec)
    assert space.network(topology) == spec.network
    assert space.spec(topology, spec.classes, name).cost == spec.cost
    one = topology[None]
    assert_valid(space, one)
    cost = space.cost(one, spec.classes)
    assert (cost.macs[0], cost.params[0]) == (spec.cost.macs, spec.cost.params)


@pytest.mark.parametrize("name", [name for name in list_models() if name.startswith("hrnet_")])
def test_hrnet_is_a_point_of_the_space(name: str) -> None:
    spec = load_spec(name)
    assert space_of(spec).network(topology_of(spec)) == spec.network


@pytest.mark.parametrize("probability", [0.2, 0.5])
@spaces
def test_published_masks_survive_crossover_and_mutation(space: MultipathSpace, probability: float) -> None:
    specs = [spec for spec in map(load_spec, PUBLISHED) if spec.task == space.head]
    parents = Topologies.joined([topology_of(spec)[None] for spec in specs])
    for seed in range(5):
        rng = np.random.default_rng(seed)
        children = cross(rng, parents, 0.25)
        assert_valid(space, children)
        for m in range(len(space.branches)):
            pool = [(parent.depth[m].tolist(), parent.fusion[m].tolist()) for parent in (parents[i] for i in range(4))]
            for i in range(4):
                assert (children.depth[i, m].tolist(), children.fusion[i, m].tolist()) in pool
        assert_valid(space, mutate(space, rng, children, probability))


# --- genomes --------------------------------------------------------------------------------------


@spaces
@settings(max_examples=15)
@given(seed=seeds)
def test_genomes_and_modules_stand_for_topologies(space: MultipathSpace, seed: int) -> None:
    topologies = space.sample(np.random.default_rng(seed), 4)
    genomes = space.encode(topologies)
    assert genomes.shape == (4, len(space.gene_options))
    assert ((genomes >= 0) & (genomes < space.gene_options)).all()
    assert_valid(space, topologies)


@spaces
@settings(max_examples=15)
@given(seed=seeds)
def test_any_genome_is_a_topology(space: MultipathSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_valid(space, space.decode(rng.integers(0, space.gene_options, (4, len(space.gene_options)))))


def test_the_space_is_as_large_as_the_paper_says() -> None:
    def count(branches: int) -> float:  # for each depth of a branch, the paths into it
        into = sum(2.0 ** (depth * (branches - 1)) for depth in (2, 3, 4, 5))
        return into**branches

    assert count(2) * count(3) ** 4 * count(4) ** 3 > 1e72
    assert len(SEGMENTATION.gene_options) == 26 + 5 * (2 + 4 * 6 + 3 * 12)


@spaces
def test_keys_tell_topologies_apart(space: MultipathSpace) -> None:
    topologies = space.sample(np.random.default_rng(0), 200)
    keys = space.keys(topologies)
    assert len(set(keys)) == 200
    assert space.keys(space.decode(space.encode(topologies))) == keys
    flipped = topologies.fusion.copy()
    flipped[:, 0, 0, 0, 1] ^= True
    assert not set(space.keys(space.canonical(topologies.depth, flipped))) & set(keys)


# --- validity -------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(seed=seeds, probability=st.sampled_from([0.0, 0.05, 0.2]))
def test_every_branch_of_a_pose_network_has_a_way_to_the_output(seed: int, probability: float) -> None:
    topologies = POSE.sample_group(np.random.default_rng(seed), Group((2, 3, 4, 5), probability), 1)
    trace = POSE.spec(topologies[0], 17).trace
    live = {op.name for op in trace.live_ops}
    positions = [f"stage{b}.{i}" for b, count in zip((2, 3, 4), POSE.modules, strict=True) for i in range(count)]
    for position, branches in zip(positions, POSE.branches, strict=True):
        assert all(f"{position}.blocks.{branch}.0.conv1" in live for branch in range(branches))


def test_an_idle_branch_is_switched_on_after_the_last_step_of_the_branch_that_is_read() -> None:
    depth = np.full((8, 4), 3)
    fusion = np.zeros((8, 4, 5, 4), dtype=bool)
    fusion[-1, 2, 0, 3] = True  # 3 feeds 2 early enough to be read through it
    fusion[-1, 0, 1, 2] = True
    fusion[-1, 1, 2, 0] = True  # 1 is not read: neither what it gets
    found = POSE.canonical(depth, fusion).fusion[-1]
    np.testing.assert_array_equal(found[0, :3], [[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]])
    assert found[0].sum() == 5
    assert found[2, 0, 3]
    assert found[1, 2, 0]  # a dead end, kept
    unread = SEGMENTATION.canonical(depth, fusion).fusion[-1]
    np.testing.assert_array_equal(unread[0, :3], [[1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]])


@spaces
def test_masks_of_other_spaces_are_refused(space: MultipathSpace) -> None:
    modules = space.to_modules(space.largest)
    with pytest.raises(InputError, match=r"modules: found \[2, 3\] branches, expected \[2, 3, 3, 3, 3, 4, 4, 4\]"):
        space.from_modules(modules[:2])
    shallow = Module(depth=(1, 2), fusion=(((1, 1), *[(0, 0)] * 4), ((0, 1), (0, 1), *[(0, 0)] * 3)))
    with pytest.raises(InputError, match=r"modules.0.depth: found \[1, 2\], expected some of \[2, 3, 4, 5\]"):
        space.from_modules((shallow, *modules[1:]))


def test_a_pose_mask_with_an_idle_branch_is_refused() -> None:
    modules = SEGMENTATION.to_modules(SEGMENTATION.smallest)
    assert_same(SEGMENTATION.from_modules(modules), SEGMENTATION.smallest)
    with pytest.raises(InputError, match="modules.7.fusion: found a branch that feeds no output"):
        POSE.from_modules(modules)


# --- costs ----------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(multipath_specs(HEADS))
def test_costs_are_those_of_the_trace(spec: ArchSpec) -> None:
    network = spec.network
    assert isinstance(network, MultipathNetwork)
    depth = np.zeros((1, len(network.modules), 4), dtype=np.int64)
    fusion = np.zeros((1, len(network.modules), 4, 5, 4), dtype=bool)
    for m, module in enumerate(network.modules):
        branches = len(module.depth)
        depth[0, m, :branches] = module.depth
        fusion[0, m, :branches, :, :branches] = module.fusion
    cost = multipath_cost(depth, fusion, network.width, network.head, spec.input, spec.classes)
    assert (cost.macs.tolist(), cost.params.tolist()) == ([spec.cost.macs], [spec.cost.params])


@spaces
def test_a_population_costs_what_its_specs_cost(space: MultipathSpace) -> None:
    topologies = space.sample(np.random.default_rng(0), 8)
    cost = space.cost(topologies, 19)
    for i in range(8):
        spec = space.spec(topologies[i], 19)
        assert (spec.cost.macs, spec.cost.params) == (cost.macs[i], cost.params[i])


@spaces
def test_all_networks_lie_between_the_smallest_and_the_largest(space: MultipathSpace) -> None:
    ends = Topologies.joined([space.smallest[None], space.largest[None]])
    assert_valid(space, ends)
    least, most = space.cost(ends, 19).macs
    topologies = space.sample(np.random.default_rng(0), 500)
    macs = space.cost(topologies, 19).macs
    assert ((least < macs) & (macs < most)).all()
    assert not (topologies.fusion & ~space.largest.fusion).any()
    assert (topologies.depth <= space.largest.depth).all()


def test_costs_past_64_bits_are_refused() -> None:
    largest = SEGMENTATION.largest[None]
    image = Input(height=16_384, width=65_536)
    fits = multipath_cost(largest.depth, largest.fusion, 4096, "segmentation", image, 19)
    network = SEGMENTATION.network(SEGMENTATION.largest).model_copy(update={"width": 4096})
    assert fits.macs.item() == trace(network, image, 19).macs
    with pytest.raises(BudgetError, match=r"cost: found 2\^63 or more"):  # twice as much
        multipath_cost(largest.depth, largest.fusion, 4096, "segmentation", Input(height=32_768, width=65_536), 19)


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", SEGMENTATION.groups.all, ids=str)
def test_a_group_draws_its_depths_and_paths(group: Group) -> None:
    topologies = SEGMENTATION.sample_group(np.random.default_rng(0), group, 600)
    depths = topologies.depth[topologies.depth > 0]
    low, high = group.depths
    assert set(depths.tolist()) == {low, high}
    assert chisquare([(depths == low).sum(), (depths == high).sum()]).pvalue > 1e-3
    possible = SEGMENTATION.connections & (np.arange(5) < topologies.depth[..., None])[..., None]
    on, number = int((topologies.fusion & possible).sum()), int(possible.sum())
    assert chisquare([on, number - on], [group.fusion * number, (1 - group.fusion) * number]).pvalue > 1e-3


def test_groups_are_equally_likely() -> None:
    topologies = SEGMENTATION.sample(np.random.default_rng(1), 4500)
    possible = SEGMENTATION.connections & (np.arange(5) < topologies.depth[..., None])[..., None]
    share = (topologies.fusion & possible).sum(axis=(1, 2, 3, 4)) / possible.sum(axis=(1, 2, 3, 4))
    fusion = np.digitize(share, [0.35, 0.65])  # 0.2, 0.5, 0.8, with some 200 paths each
    depths = topologies.depth.max(axis=(1, 2)) - 3  # 26 branches: one at least has the larger depth
    assert (np.where(topologies.depth > 0, topologies.depth, 9).min(axis=(1, 2)) == depths + 2).all()
    assert chisquare(np.bincount(3 * depths + fusion, minlength=9)).pvalue > 1e-3
    early, late = (3 * depths[half] + fusion[half] for half in (slice(2250), slice(2250, None)))
    assert chisquare(np.bincount(early, minlength=9)).pvalue > 1e-3  # and in any order
    assert chisquare(np.bincount(late, minlength=9)).pvalue > 1e-3


def test_the_groups_of_the_paper() -> None:
    assert len(SEGMENTATION.groups.all) == 9
    assert {group.depths for group in SEGMENTATION.groups.all} == {(2, 3), (3, 4), (4, 5)}
    assert {group.fusion for group in SEGMENTATION.groups.all} == {0.2, 0.5, 0.8}


# --- files ----------------------------------------------------------------------------------------


def test_a_space_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nwidth: 8\nhead: pose\ninput: {height: 64, width: 64}\n")  # the rest is the paper's
    space = MultipathSpace.load(path)
    assert (space.modules, space.depths, len(space.groups.all)) == ((1, 4, 3), (2, 3, 4, 5), 9)
    assert changed(space, name="other").hash == space.hash != changed(space, width=9).hash
    small = changed(space, modules=[1, 1, 1], depths=[1, 3], groups={"depths": [[1, 3]], "fusion": [0.5]})
    assert small.branches == (2, 3, 4)
    assert_valid(small, small.sample(np.random.default_rng(0), 5))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 0, "width: found 0, expected greater than or equal to 1"),
        ("head", "detection", "head: found 'detection', expected 'segmentation' or 'pose'"),
        ("modules", [1, 4], r"modules: found \[1, 4\], expected three numbers"),
        ("modules", [1, 4, 0], "modules.2: found 0, expected greater than or equal to 1"),
        ("depths", [3, 2], r"depths: found \[3, 2\], expected rising numbers"),
        ("depths", [2, 6], "depths.1: found 6, expected less than or equal to 5"),
        ("depths", [2, 3], r"groups.depths: found \[3, 4\], expected some of \[2, 3\]"),  # POSE says its groups
        ("groups", {"fusion": [1.5]}, "groups.fusion.0: found 1.5, expected less than or equal to 1"),
        ("groups", {"depths": [[]]}, "groups.depths.0: .*at least 1 item"),
        ("input", {"height": 64}, "input.width: is missing"),
        ("color", 1, "color: found 1, expected no such field"),
    ],
)
def test_fields_that_are_wrong_are_one_line(field: str, value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(POSE.model_dump(mode="json") | {field: value}))
    with pytest.raises(SpecError, match=f"space.yaml: {message}") as caught:
        MultipathSpace.load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "depths"),
    [
        ({}, ((2, 3), (3, 4), (4, 5))),
        ({"depths": [1, 2, 3]}, ((1, 2), (2, 3))),
        ({"depths": [1, 2, 3], "groups": {"fusion": [0.5]}}, ((1, 2), (2, 3))),
        ({"depths": [4]}, ((4,),)),
        ({"depths": [1, 2, 3], "groups": {"depths": [[1, 3]]}}, ((1, 3),)),
    ],
)
def test_default_groups_have_the_depths_of_the_space(given: dict[str, Any], depths: object) -> None:
    values = {name: value for name, value in POSE.model_dump(mode="json").items() if name not in ("depths", "groups")}
    space = MultipathSpace.from_values(values | given, "space.yaml")
    assert space.groups.depths == depths
    assert MultipathSpace.from_values(space.model_dump(mode="json"), "written").hash == space.hash


def test_unknown_names_and_invalid_yaml_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="imagenet: found no such space, expected scalenas_pose, scalenas_segmentation"
    ):
        MultipathSpace.load("imagenet")
    file = tmp_path / "space.yaml"
    file.write_text("a: [")
    with pytest.raises(InputError, match="space.yaml: is not valid YAML: "):
        MultipathSpace.load(file)
