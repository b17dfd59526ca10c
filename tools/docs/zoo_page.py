"""The table of the whole zoo, from its entries."""

from collections.abc import Iterator

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.zoo.catalog import list_models
from scalenet_zoo.zoo.published import PublishedEntry, is_of_weights, published_entries
from scalenet_zoo.zoo.sources import load_spec

TITLES = {"classification": "Classification", "pose": "Pose", "segmentation": "Segmentation"}


def zoo_page() -> str:
    """Write tables of all entries by task: input, cost, reported accuracy and published weights, as Markdown."""
    specs = [load_spec(name) for name in list_models()]
    published = published_entries()
    parts = [f"{len(specs)} entries, {len(published)} of them with published weights."]
    for task, title in TITLES.items():
        chosen = sorted((spec for spec in specs if spec.task == task), key=lambda spec: (_family(spec), spec.cost.macs))
        rows = [_row(spec, published.get(spec.name)) for spec in chosen]
        parts += [f"### {title}", "\n".join((*(_CLASSIFIERS if task == "classification" else _OTHERS), *rows))]
    return "\n\n".join(parts) + "\n"


_CLASSIFIERS = (
    "| name | input | MACs | parameters | top-1, % (timm) | top-1, % (others) | weights |",
    "| --- | --- | ---: | ---: | ---: | --- | --- |",
)
_OTHERS = (
    "| name | input | MACs | parameters | accuracy | weights |",
    "| --- | --- | ---: | ---: | --- | --- |",
)


def _family(spec: ArchSpec) -> str:
    """The part of a name that the entries of a family share."""
    return spec.name.rpartition("_")[0]


def _row(spec: ArchSpec, entry: PublishedEntry | None) -> str:
    cells = [
        f"`{spec.name}`",
        f"{spec.input.height}x{spec.input.width}",
        format_count(spec.cost.macs),
        format_count(spec.cost.params),
    ]
    if spec.task == "classification":
        result = entry.default.result_at(entry.pixels) if entry else None
        cells.append(f"{result.top1:.1f}" if result else "")
    cells += ["; ".join(_figures(spec)), _weights(entry) if entry else ""]
    return f"| {' | '.join(cells)} |"


def _figures(spec: ArchSpec) -> Iterator[str]:
    """The reported figures that do not belong to published weights, with whose they are."""
    for figure in spec.provenance.results:
        if not is_of_weights(figure):
            metric = "" if spec.task == "classification" else f" {figure.metric}"
            yield f"{figure.value:g}{metric} ({figure.origin})"


def _weights(entry: PublishedEntry) -> str:
    result = entry.default.result_at(entry.pixels)
    first = f"`{entry.default.tag}`" if result else "backbone"
    others = len(entry.weights) - 1
    return f"{first} and {others} more" if others else first
