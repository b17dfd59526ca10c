"""A network's layers as the rows of a table, with their cost."""

from dataclasses import dataclass

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.arch.trace import Op


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A row of the table: a layer, or a module of a multipath network.

    Attributes:
        name: the path of its module in the built network.
        stage: the part of the network that it belongs to.
        what: its choices, in words.
        output: (channels, height, width) of its output; where there are several branches, of the first one.
        macs: multiply-adds.
        params: trainable parameters.
    """

    name: str
    stage: str
    what: str
    output: tuple[int, int, int]
    macs: int
    params: int


def layer_table(spec: ArchSpec) -> list[LayerRow]:
    """List a network's layers in order, with their MACs and parameters."""
    network = spec.network
    described: dict[str, str] = {}
    if network.type == "mbconv":
        padding = f" {network.padding}" if network.padding != "symmetric" else ""
        described["stem"] = f"conv {network.stem.kernel}x{network.stem.kernel} /{network.stem.stride}{padding}"
        for s, stage in enumerate(network.stages):
            for i, layer in enumerate(stage):
                squeeze = f", squeeze {layer.squeeze}" if layer.squeeze else ""
                kernel = f"{layer.kernel}x{layer.kernel} /{layer.stride}{padding}"
                expand = " (expanded)" if layer.expand else ""
                described[f"stages.{s}.{i}"] = f"mbconv {kernel}, hidden {layer.hidden}{expand}{squeeze}"
    else:
        positions = dict.fromkeys((2, 3, 4), 0)
        for module in network.modules:
            branches = len(module.depth)
            paths = sum(sum(map(sum, steps)) for steps in module.fusion) - sum(module.depth)
            described[f"stage{branches}.{positions[branches]}"] = f"depth {list(module.depth)}, {paths} fusion paths"
            positions[branches] += 1

    grouped: dict[str, list[Op]] = {}
    for op in spec.trace.ops:
        if op.name:
            parts = op.name.split(".")
            length = 3 if parts[0] == "stages" else 2 if parts[0].startswith("stage") else 1
            grouped.setdefault(".".join(parts[:length]), []).append(op)
    rows = []
    for name, ops in grouped.items():
        outputs = [spec.trace.shapes[op.output] for op in ops]
        if network.type == "multipath" and name != "stem":  # last comes the branch with the highest resolution
            outputs.sort(key=lambda shape: shape[1])
        rows.append(
            LayerRow(
                name=name,
                stage=name.rpartition(".")[0] or name,
                what=described.get(name, ""),
                output=outputs[-1],
                macs=sum(op.macs for op in ops),
                params=sum(op.params for op in ops),
            )
        )
    return rows
