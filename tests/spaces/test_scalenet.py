"""Search spaces: the paper's, others as YAML, genomes, costs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scalenet_zoo.arch.rounding import scale_depth
from scalenet_zoo.arch.spec import MBConvNetwork
from scalenet_zoo.core.errors import InputError, SpecError
from scalenet_zoo.spaces.scalenet import Scaling, Space
from scalenet_zoo.zoo.catalog import load_family
from tests.helpers.searching import SMALL

SCALENET = Space.load("scalenet")
spaces = pytest.mark.parametrize("space", [SMALL, SCALENET], ids=["small", "scalenet"])
seeds = st.integers(0, 2**32)


# --- the paper's space ----------------------------------------------------------------------------


def test_base_models_of_the_paper() -> None:
    found = [(max(stage.depths), stage.stride, stage.channels) for stage in SCALENET.stages]
    assert found == [(1, 1, 16), (4, 2, 32), (4, 2, 40), (4, 2, 80), (4, 1, 96), (4, 2, 192), (1, 1, 320)]
    assert [stage.expand for stage in SCALENET.stages] == [1, 6, 6, 6, 6, 6, 6]
    assert {stage.kernels for stage in SCALENET.stages} == {(3, 5, 7)}
    assert all(stage.depths == tuple(range(1, max(stage.depths) + 1)) for stage in SCALENET.stages)
    assert (SCALENET.stem.channels, SCALENET.stem.kernel, SCALENET.stem.stride) == (32, 3, 2)
    assert (SCALENET.head.channels, SCALENET.scales_head, SCALENET.divisor) == (1280, False, 1)
    assert (SCALENET.activation, SCALENET.gate, SCALENET.squeeze) == ("hard_swish", "hard_sigmoid", "expanded")
    assert SCALENET.resolution == 224


def test_strategies_of_the_paper() -> None:
    expected = {
        1: ([1.04, 1.08, 1.12, 1.16], (224, 240, 256)),
        2: ([1.2 + 0.04 * i for i in range(5)], (272, 288, 304)),
        3: ([1.4 + 0.04 * i for i in range(7)], (320, 336, 352)),
    }
    for stage in SCALENET.scaling[1:]:
        multipliers, resolutions = expected[stage.stage]
        assert stage.depth == stage.width == pytest.approx(multipliers)
        assert stage.resolution == resolutions
    assert [len(stage.depth) for stage in SCALENET.scaling] == [1, 4, 5, 7]
    assert [len(SCALENET.scalings(stage)) for stage in range(4)] == [1, 48, 75, 147]
    assert SCALENET.unscaled == Scaling(0, 1.0, 1.0, 224)
    assert (SCALENET.deepest, SCALENET.widest) == (1.64, 1.64)
    assert [SCALENET.positions(stage) for stage in range(7)] == [2, 7, 7, 7, 7, 7, 2]
    assert SCALENET.resolutions == (224, 240, 256, 272, 288, 304, 320, 336, 352)


def test_the_published_base_model_is_of_the_space() -> None:
    base = load_family("scalenet").base
    kernels = np.zeros((1, 7, 4), dtype=np.int64)
    for s, stage in enumerate(base.stages):
        kernels[0, s, : len(stage.kernels)] = stage.kernels
    np.testing.assert_array_equal(SCALENET.decode(SCALENET.encode(kernels)), kernels)
    assert abs(SCALENET.population(kernels, [SCALENET.unscaled], 1000).cost.macs[0, 0] - 306e6) < 25e6 * 2


# --- genomes --------------------------------------------------------------------------------------


@spaces
@given(seed=seeds)
def test_decoding_undoes_encoding(space: Space, seed: int) -> None:
    bases = space.sample(np.random.default_rng(seed), 5)
    genomes = space.encode(bases)
    assert genomes.shape == (5, len(space.gene_options))
    assert ((genomes >= 0) & (genomes < space.gene_options)).all()
    np.testing.assert_array_equal(space.decode(genomes), bases)


@spaces
@given(seed=seeds)
def test_any_genome_is_a_base_model(space: Space, seed: int) -> None:
    genomes = np.random.default_rng(seed).integers(0, space.gene_options, (5, len(space.gene_options)))
    bases = space.decode(genomes)
    for s, stage in enumerate(space.stages):
        layers = np.count_nonzero(bases[:, s], axis=1)
        assert set(layers) <= set(stage.depths)
        assert set(np.unique(bases[:, s])) <= {0, *stage.kernels}
        assert all((row[:count] > 0).all() for row, count in zip(bases[:, s], layers, strict=True))  # absent ones last
    canonical = space.encode(bases)
    np.testing.assert_array_equal(space.decode(canonical), bases)
    np.testing.assert_array_equal(space.encode(space.decode(canonical)), canonical)


# --- networks and costs ---------------------------------------------------------------------------


@spaces
@given(seed=seeds)
def test_a_population_costs_what_its_specs_cost(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bases = space.sample(rng, 2)
    scalings = [each[rng.integers(len(each))] for each in (space.scalings(s.stage) for s in space.scaling)]
    cost = space.population(bases, scalings, 10, in_channels=2).cost
    for n, base in enumerate(bases):
        for m, scaling in enumerate(scalings):
            spec = space.spec(base, scaling, 10, in_channels=2)
            assert (spec.cost.macs, spec.cost.params) == (cost.macs[n, m], cost.params[n, m])
            assert spec.network == space.network(base, scaling)
            assert isinstance(spec.network, MBConvNetwork)
            for row, stage in zip(base, spec.network.stages, strict=True):
                expected = [int(kernel) for kernel in row if kernel]
                expected += expected[-1:] * (int(scale_depth(len(expected), scaling.depth)) - len(expected))
                assert [layer.kernel for layer in stage] == expected


def test_a_family_has_all_strategies() -> None:
    from scalenet_zoo.arch.scaling import expand
    from scalenet_zoo.arch.spec import Provenance

    base = SMALL.sample(np.random.default_rng(0), 1)[0]
    scalings = [SMALL.scalings(stage)[0] for stage in range(3)]
    family = SMALL.family(base, scalings, 10, "mine", Provenance(source="a test"))
    assert [spec.name for spec in expand(family)] == ["mine_s0", "mine_s1", "mine_s2"]
    assert [spec.network for spec in expand(family)] == [SMALL.network(base, scaling) for scaling in scalings]


def test_the_prior_draws_depths_then_kernels_uniformly() -> None:
    bases = SMALL.sample(np.random.default_rng(0), 12_000)
    depths = np.count_nonzero(bases[:, 1], axis=1)
    for depth in (1, 2, 3):
        assert (depths == depth).mean() == pytest.approx(1 / 3, abs=0.02)
    for kernel in (3, 5, 7):
        assert (bases[:, 2, 0] == kernel).mean() == pytest.approx(1 / 3, abs=0.02)


# --- files ----------------------------------------------------------------------------------------


def values() -> dict[str, Any]:
    dumped: dict[str, Any] = SMALL.model_dump(mode="json")
    return dumped


def test_a_space_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values() | {"name": "mine"}))
    assert Space.load(path) == SMALL.model_copy(update={"name": "mine"})
    assert Space.load(path).hash == SMALL.hash  # the name does not matter
    assert Space.from_values(values() | {"divisor": 8}, "other").hash != SMALL.hash


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("divisor",), 0, "divisor: found 0, expected greater than or equal to 1"),
        (("color",), 1, "color: found 1, expected no such field"),
        (
            ("stages", 1, "kernels"),
            [5, 3],
            r"stages.1.kernels: found \[5, 3\], expected rising numbers",
        ),
        (("stages", 1, "depths"), [], r"stages.1.depths: .*at least 1 item"),
        (("stages", 1, "depths"), [0, 1], "stages.1.depths.0: found 0, expected greater than or equal to 1"),
        (("stages", 1, "kernels"), [4], "stages.1.kernels.0: found 4, expected"),
        (("stages", 1, "kernels"), ["3"], "stages.1.kernels.0: found '3', expected a valid integer"),
        (("scaling", 0, "depth"), [1.1], r"scaling: .* expected stage 0 first, with depth \[1.0\], width"),
        (("scaling", 2, "stage"), 1, r"scaling: found \[0, 1, 1\], expected rising stages"),
        (("scaling", 1, "width"), [0.0], "scaling.1.width.0: found 0.0, expected greater than or equal to 0.01"),
        (("scaling", 1, "width"), [math.nan], "scaling.1.width.0: found nan, expected a finite number"),
        (("scaling",), [], "scaling: .*at least 1 item"),
    ],
)
def test_fields_that_are_wrong_are_one_line(path: tuple[Any, ...], value: Any, message: str, tmp_path: Path) -> None:
    changed = values()
    part: Any = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(changed))
    with pytest.raises(SpecError, match=f"space.yaml: {message}") as caught:
        Space.load(file)
    assert "\n" not in str(caught.value)


def rising(count: int) -> list[float]:
    return [1 + i / 1e5 for i in range(count)]


@pytest.mark.parametrize(
    ("stages", "scaling", "message"),
    [
        ({"depths": [64]}, {}, r"found 2,688 layers in the largest network \(depth multiplier 1.3\)"),
        (
            {"channels": 65_536},
            {},
            "found that the largest network is not valid: small: channels: found 85197, expected less",
        ),
        ({}, {"depth": [1e-9]}, "scaling.1.depth.0: found 1e-09, expected greater than or equal to 0.01"),
        ({}, {"depth": [1e9]}, "scaling.1.depth.0: found 1000000000.0, expected less than or equal to 100"),
        ({}, {"depth": rising(200), "width": rising(200)}, "scaling.1: found 120,000 strategies"),
    ],
)
def test_spaces_beyond_all_bounds_are_one_line(stages: dict[str, Any], scaling: dict[str, Any], message: str) -> None:
    values = SMALL.model_dump(mode="json")
    values["stages"] = [{**values["stages"][1], **stages}] * 32
    values["scaling"] = [values["scaling"][0], {**values["scaling"][1], **scaling}]
    with pytest.raises(SpecError, match=f"^space.yaml: {message}") as caught:
        Space.from_values(values, "space.yaml")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML: "),
        ("name: &a [*a]", "found an anchor that contains itself"),
        ("2024-01-01: 1\n1: 2", "found 1 as the name of a value"),
        ("a: &a [1, 2]\nb: [" + "*a, " * 60_000 + "]", "found .* values with anchors expanded"),
        ("name: !!python/name:os.system", "is not valid YAML: "),
        (None, "cannot be read: "),
    ],
)
def test_invalid_yaml_is_one_line(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=f"space.yaml: {message}") as caught:
        Space.load(file)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_told_from_files() -> None:
    with pytest.raises(InputError, match="imagenet: found no such space, expected .*scalenet.* or a YAML file"):
        Space.load("imagenet")
    with pytest.raises(SpecError, match="space.yaml: name: is missing"):
        Space.from_values({}, "space.yaml")
    with pytest.raises(InputError, match="stage: found 7, expected one of 0, 1, 2, the stages of the space small"):
        SMALL.scalings(7)
