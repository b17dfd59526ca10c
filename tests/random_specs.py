"""Hypothesis strategies: small random specs of both types, as valid as any in the zoo."""

from typing import Literal

from hypothesis import strategies as st

from scalenet_zoo.spec import (
    FUSION_STEPS,
    ArchSpec,
    Head,
    Input,
    Layer,
    MBConvNetwork,
    Module,
    MultipathNetwork,
    Provenance,
    Stem,
)

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
                )
            )
            before = layers[-1].channels
        stages.append(tuple(layers))
    network = MBConvNetwork(
        stem=stem,
        stages=tuple(stages),
        head=Head(channels=draw(st.integers(1, 24))),
        activation=draw(st.sampled_from(["relu", "swish", "hard_swish"])),
        gate=draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
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
def multipath_specs(draw: st.DrawFn) -> ArchSpec:
    task: Literal["segmentation", "pose"] = draw(st.sampled_from(["segmentation", "pose"]))
    counts = [(branches, draw(st.integers(1, 2))) for branches in (2, 3, 4)]
    network = MultipathNetwork(
        width=draw(st.integers(1, 5)),
        head=task,
        modules=tuple(draw(modules(branches)) for branches, count in counts for _ in range(count)),
    )
    image = Input(channels=draw(st.integers(1, 4)), height=draw(st.integers(8, 70)), width=draw(st.integers(8, 70)))
    return ArchSpec.create("random", task, image, draw(st.integers(0, 7)), network, PROVENANCE)


specs = st.one_of(mbconv_specs(), multipath_specs())
