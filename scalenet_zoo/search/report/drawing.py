"""Drawings of networks, one below the other.

Networks of a family have one bar per layer: its height shows the channels, its colour the kernel. Multipath networks
have one row per branch, one square per block and one line per path.
"""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.quantities import format_count

KERNEL_COLOURS = ("#dce6f2", "#7fb0d9", "#20609f", "#0b2545")
"""From the smallest kernel of a family to the largest. Light to dark, so they also differ without colour."""
UPWARD, DOWNWARD = "#D55E00", "#009E73"
GAP = 0.8
"""The gap between stages, in layers."""
NARROWEST = 16
"""The smallest number of layers that fills the width of the drawing."""


def draw_architectures(specs: Sequence[ArchSpec]) -> Figure:
    """Draw mbconv networks with their stages aligned.

    Args:
        specs: networks with the same number of stages, as those of a family.
    """
    networks = [spec.network for spec in specs if spec.network.type == "mbconv"]
    depths = [max(len(network.stages[s]) for network in networks) for s in range(len(networks[0].stages))]
    starts = [sum(depths[:s]) + GAP * s for s in range(len(depths))]
    width = starts[-1] + depths[-1]
    most = max(layer.channels for network in networks for stage in network.stages for layer in stage)
    kernels = sorted({layer.kernel for network in networks for stage in network.stages for layer in stage})
    colours = {kernel: KERNEL_COLOURS[min(i, len(KERNEL_COLOURS) - 1)] for i, kernel in enumerate(kernels)}

    figure, panels = _panels(11, 1.05, specs)
    for axes, spec, network in zip(panels, specs, networks, strict=True):
        for start, stage in zip(starts, network.stages, strict=True):
            for i, layer in enumerate(stage):
                height = 0.12 + 0.88 * layer.channels / most
                axes.bar(start + i, height, 0.9, align="edge", color=colours[layer.kernel], edgecolor="#333333", lw=0.6)
            axes.text(start, -0.06, str(stage[0].channels), ha="left", va="top", fontsize=9)
        name = f"{spec.name}\n{spec.input.height} px, {format_count(spec.cost.macs)} MACs"
        axes.text(-0.6, 0.5, name, ha="right", va="center", fontsize=10)
        axes.set(xlim=(-0.3, max(width, NARROWEST) + 0.1), ylim=(-0.32, 1.05))
        axes.axis("off")
    for s, (start, stage) in enumerate(zip(starts, networks[0].stages, strict=True)):
        halved = ", /2" if stage[0].stride == 2 else ""
        panels[0].text(start, 1.1, f"stages.{s}{halved}", fontsize=9, color="#444444", va="bottom")
    _explain(figure, [Patch(facecolor=colours[k], edgecolor="#333333", label=f"{k}x{k} kernel") for k in kernels])
    figure.suptitle("Layers of the networks; height and number: output channels; /2: the stage halves the resolution")
    return figure


def draw_topologies(specs: Sequence[ArchSpec]) -> Figure:
    """Draw multipath networks: after the blocks of a step, paths lead to the branches that they feed.

    Args:
        specs: networks with the same number of modules.
    """
    networks = [spec.network for spec in specs if spec.network.type == "multipath"]
    steps = max(max(module.depth) for network in networks for module in network.modules)
    pitch = steps + GAP
    figure, panels = _panels(max(11, 0.16 * pitch * len(networks[0].modules)), 1.6, specs)
    for axes, spec, network in zip(panels, specs, networks, strict=True):
        for m, module in enumerate(network.modules):
            for branch, depth in enumerate(module.depth):
                start = m * pitch
                axes.plot([start, start + pitch], [-branch, -branch], color="#bbbbbb", lw=0.6, zorder=0)
                axes.plot([start + t for t in range(depth)], [-branch] * depth, "s", color=KERNEL_COLOURS[2], ms=4)
            lines = [
                ((m * pitch + t, m * pitch + t + 0.8), (-origin, -to))
                for to, feeding in enumerate(module.fusion)
                for t, origins in enumerate(feeding)
                for origin, fed in enumerate(origins)
                if fed and origin != to
            ]
            for xs, ys in lines:
                axes.plot(xs, ys, color=UPWARD if ys[1] > ys[0] else DOWNWARD, lw=0.5, alpha=0.7, zorder=0)
        axes.set_title(f"{spec.name}: {format_count(spec.cost.macs)} MACs, {format_count(spec.cost.params)} parameters")
        axes.set(xlim=(-0.5, pitch * len(network.modules)), ylim=(-3.5, 0.5))
        axes.set_yticks([0, -1, -2, -3], ["/4", "/8", "/16", "/32"])
        axes.set_xticks([])
        axes.grid(visible=False)
    block = Line2D([], [], marker="s", ls="none", color=KERNEL_COLOURS[2], label="block")
    upward = Line2D([], [], color=UPWARD, label="path to a higher resolution")
    _explain(figure, [block, upward, Line2D([], [], color=DOWNWARD, label="path to a lower resolution")])
    return figure


def _panels(width: float, height: float, specs: Sequence[ArchSpec]) -> tuple[Figure, list[Axes]]:
    """Make a figure with one panel per network; width and height of a panel are in inches."""
    figure = Figure(figsize=(width, height * len(specs) + 0.9), layout="constrained")
    return figure, list(figure.subplots(len(specs), 1, squeeze=False)[:, 0])


def _explain(figure: Figure, handles: Sequence[Artist]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
