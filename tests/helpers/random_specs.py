"""Hypothesis strategies: small random specs of both types, as valid as any in the zoo, and populations."""

from typing import Literal

import numpy as np
from hypothesis import strategies as st

from scalenet_zoo.arch.family import Strategy
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.scaling import apply_strategy, encode_kernels
from scalenet_zoo.arch.spec import (
    FUSION_STEPS,
    ArchSpec,
    DenseHead,
    Head,
    Input,
    Layer,
    MBConvNetwork,
    Module,
    MultipathNetwork,
    Provenance,
    Stem,
)
from scalenet_zoo.zoo.catalog import FAMILIES, load_family

PROVENANCE = Provenance(source="drawn at random by a test")
KERNELS = st.sampled_from([1, 3, 5, 7])


@st.composite
def mbconv_specs(draw: st.DrawFn) -> ArchSpec:
    stem = Stem(channels=draw(st.integers(1, 12)), kernel=draw(KERNELS), stride=draw(st.integers(1, 2)))
    before = stem.channels
    stages = []
    for _ in range(draw(st.integers(1, 4))):
        layers = []
        for _ in range(draw(st.integers(1, 3))):
            layers.append(
                Layer(
                    kernel=draw(KERNELS),
                    stride=draw(st.integers(1, 2)),
                    hidden=before * draw(st.sampled_from([1, 2, 3])) + draw(st.integers(0, 1)),
                    squeeze=draw(st.integers(0, 5)),
                    channels=draw(st.one_of(st.just(before), st.integers(1, 16))),
                    expand=draw(st.booleans()),
                )
            )
            before = layers[-1].channels
        stages.append(tuple(layers))
    network = MBConvNetwork(
        stem=stem,
        stages=tuple(stages),
        head=Head(channels=draw(st.integers(1, 24))),
        activation=draw(st.sampled_from(["relu", "relu6", "swish", "hard_swish"])),
        gate=draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
        padding=draw(st.sampled_from(["symmetric", "same"])),
        norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
    )
    image = Input(channels=draw(st.integers(1, 4)), height=draw(st.integers(1, 40)), width=draw(st.integers(1, 40)))
    return ArchSpec.create("random", "classification", image, draw(st.integers(0, 7)), network, PROVENANCE)


@st.composite
def modules(draw: st.DrawFn, branches: int) -> Module:
    depth = tuple(draw(st.integers(1, FUSION_STEPS)) for _ in range(branches))
    bits = st.integers(0, 1)
    fusion = tuple(
        tuple(
            tuple(int(step < depth[to] and (origin == to or draw(bits))) for origin in range(branches))
            for step in range(FUSION_STEPS)
        )
        for to in range(branches)
    )
    return Module(depth=depth, fusion=fusion)


@st.composite
def multipath_specs(draw: st.DrawFn, heads: tuple[DenseHead, ...] = ("segmentation", "pose")) -> ArchSpec:
    """Networks with any of some heads; those of the search spaces, if not said otherwise."""
    counts = [(branches, draw(st.integers(1, 2))) for branches in (2, 3, 4)]
    network = MultipathNetwork(
        width=draw(st.integers(1, 5)),
        head=draw(st.sampled_from(heads)),
        modules=tuple(draw(modules(branches)) for branches, count in counts for _ in range(count)),
    )
    image = Input(channels=draw(st.integers(1, 4)), height=draw(st.integers(8, 70)), width=draw(st.integers(8, 70)))
    return ArchSpec.create("random", network.task, image, draw(st.integers(0, 7)), network, PROVENANCE)


HEADS: tuple[DenseHead, ...] = ("segmentation", "pose", "bottom_up")
specs = st.one_of(mbconv_specs(), multipath_specs(HEADS))


@st.composite
def populations(draw: st.DrawFn) -> tuple[Population, list[list[ArchSpec]]]:
    """A population, and the specs of its networks: base models x strategies."""
    family = load_family(draw(st.sampled_from(FAMILIES["classification"])))
    squeeze: Literal["input", "expanded", "none"] = draw(st.sampled_from(["input", "expanded", "none"]))
    base = family.base.model_copy(
        update={
            "squeeze": squeeze,
            "stages": tuple(
                stage.model_copy(update={"scales_depth": draw(st.booleans())}) for stage in family.base.stages
            ),
        }
    )
    family = family.model_copy(
        update={"base": base, "scales_stem": draw(st.booleans()), "scales_head": draw(st.booleans())}
    )
    multipliers = st.integers(30, 250).map(lambda hundredths: hundredths / 100)
    strategy = st.builds(
        Strategy,
        name=st.just("random"),
        stage=st.just(1.0),
        depth=multipliers,
        width=multipliers,
        resolution=st.integers(1, 300),
    )
    strategies = draw(st.lists(strategy, min_size=1, max_size=4))
    divisor, classes = draw(st.sampled_from([1, 4, 8])), draw(st.integers(0, 5000))
    in_channels = draw(st.integers(1, 4))
    count = draw(st.integers(1, 3))
    kernels = np.zeros((count, len(family.base.stages), 5), dtype=np.int64)
    members = []
    for n in range(count):
        stages = tuple(
            stage.model_copy(update={"kernels": tuple(draw(st.lists(KERNELS, min_size=1, max_size=5)))})
            for stage in family.base.stages
        )
        member = family.model_copy(update={"base": family.base.model_copy(update={"stages": stages})})
        encoded = encode_kernels(member.base)
        kernels[n, :, : encoded.shape[2]] = encoded[0]
        members.append([apply_strategy(member, strategy, divisor, classes, in_channels) for strategy in strategies])
    depth, width, pixels = (
        np.array([getattr(s, part) for s in strategies]) for part in ("depth", "width", "resolution")
    )
    return Population(family, kernels, depth, width, pixels, divisor, classes, in_channels), members
