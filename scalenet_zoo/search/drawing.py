"""Networks of a family drawn under one another: a bar a layer, as high as it has channels, coloured by its kernel."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from scalenet_zoo.quantities import format_count
from scalenet_zoo.spec import ArchSpec

KERNEL_COLOURS = ("#dce6f2", "#7fb0d9", "#20609f", "#0b2545")
"""From the smallest kernel of a family to the largest: light to dark, so that they differ without colour, too."""
GAP = 0.8
"""Between stages, in layers."""
NARROWEST = 16
"""Layers that fill the drawing's width at least."""


def draw_architectures(specs: Sequence[ArchSpec]) -> Figure:
    """Draw mbconv networks, the stages of all of them in the same places.

    Args:
        specs: with the same number of stages: a family's.
    """
    networks = [spec.network for spec in specs if spec.network.type == "mbconv"]
    depths = [max(len(network.stages[s]) for network in networks) for s in range(len(networks[0].stages))]
    starts = [sum(depths[:s]) + GAP * s for s in range(len(depths))]
    width = starts[-1] + depths[-1]
    most = max(layer.channels for network in networks for stage in network.stages for layer in stage)
    kernels = sorted({layer.kernel for network in networks for stage in network.stages for layer in stage})
    colours = {kernel: KERNEL_COLOURS[min(i, len(KERNEL_COLOURS) - 1)] for i, kernel in enumerate(kernels)}

    figure = Figure(figsize=(11, 1.05 * len(specs) + 0.9), layout="constrained")
    panels = figure.subplots(len(specs), 1, squeeze=False)[:, 0]
    for axes, spec, network in zip(panels, specs, networks, strict=True):
        for start, stage in zip(starts, network.stages, strict=True):
            for i, layer in enumerate(stage):
                height = 0.12 + 0.88 * layer.channels / most
                axes.bar(start + i, height, 0.9, align="edge", color=colours[layer.kernel], edgecolor="#333333", lw=0.6)
            axes.text(start, -0.06, str(stage[0].channels), ha="left", va="top", fontsize=9)
        axes.text(
            -0.6,
            0.5,
            f"{spec.name}\n{spec.input.height} px, {format_count(spec.cost.macs)} MACs",
            ha="right",
            va="center",
            fontsize=10,
        )
        axes.set(xlim=(-0.3, max(width, NARROWEST) + 0.1), ylim=(-0.32, 1.05))
        axes.axis("off")
    for s, (start, stage) in enumerate(zip(starts, networks[0].stages, strict=True)):
        halved = ", /2" if stage[0].stride == 2 else ""
        panels[0].text(start, 1.1, f"stages.{s}{halved}", fontsize=9, color="#444444", va="bottom")
    figure.legend(
        handles=[Patch(facecolor=colours[k], edgecolor="#333333", label=f"{k}x{k} kernel") for k in kernels],
        loc="outside lower center",
        ncols=len(kernels),
        frameon=False,
    )
    figure.suptitle("Layers of the networks; height and number: output channels; /2: the stage halves the resolution")
    return figure
