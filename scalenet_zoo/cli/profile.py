"""`profile`: a latency model of a family on a back end."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.completion import complete_backend, complete_family, complete_precision
from scalenet_zoo.cli.options import LATENCY, Json, TaskName, parse_size
from scalenet_zoo.core.bounds import PROFILE_ITEMS, THREADS

NETWORKS = "The networks"
PLAN = "How much is measured"


def profile_command(
    on: Annotated[
        str,
        typer.Option(
            help="The back end: ort-cpu, torch, tensorrt, ...; `scalenet-zoo doctor` lists them.",
            autocompletion=complete_backend,
        ),
    ],
    task: Annotated[
        TaskName, typer.Option(help="The task of the networks.", rich_help_panel=NETWORKS)
    ] = TaskName.classification,
    family: Annotated[
        str | None,
        typer.Option(
            help="scalenet, efficientnet, efficientnet_lite or a family's JSON file; for other tasks scalenas or hrnet,"
            " or both if not given.",
            autocompletion=complete_family,
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="The size of the image, for other tasks than classification: 512x1024; each entry's if not given.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    divisor: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Channels of classifiers are multiples of this number; 8 if not given.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=THREADS,
            help="CPU threads; as many as there are cores if not given.",
            rich_help_panel=LATENCY,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per inference.", rich_help_panel=LATENCY)] = 1,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, fp16 or, on ort-cpu and openvino, int8.",
            autocompletion=complete_precision,
            rich_help_panel=LATENCY,
        ),
    ] = "fp32",
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure less: minutes instead of half an hour.", rich_help_panel=PLAN)
    ] = False,
    layers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=PROFILE_ITEMS,
            help="Layers to measure, within a network; short networks for other tasks than classification.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    networks: Annotated[
        int | None, typer.Option(min=4, max=PROFILE_ITEMS, help="Networks to fit the model to.", rich_help_panel=PLAN)
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(min=2, max=PROFILE_ITEMS, help="Held-out networks to judge the model by.", rich_help_panel=PLAN),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="The seed of the sampled layers and networks.", rich_help_panel=PLAN)
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="The model's file (.json); if not given, a cache that `build --latency` reads."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a latency model for a family on a back end.

    The command measures layers and networks of the family and fits the model to them. For segmentation and pose, it
    measures networks of the search space, in the widths and at the sizes of the zoo's entries. An interrupted run
    resumes where it stopped.

    Example: scalenet-zoo profile --on ort-cpu --threads 2
    """
    if task is TaskName.classification and size:
        raise typer.BadParameter("found --size with --task classification, expected it for segmentation or pose")
    if task is not TaskName.classification and divisor:
        raise typer.BadParameter(f"found --divisor with --task {task.value}, expected it for classification alone")
    if output is not None and output.suffix != ".json":
        raise typer.BadParameter(f"--output: found {output}, expected a file that ends with .json")

    from scalenet_zoo.cli.console import print_json, print_table
    from scalenet_zoo.cli.progress import progress_lines
    from scalenet_zoo.core.backends import check_backend, require_backend
    from scalenet_zoo.core.files import cache_folder
    from scalenet_zoo.core.outputs import check_writable
    from scalenet_zoo.latency.precisions import check_precision
    from scalenet_zoo.zoo.catalog import find_networks, latency_name

    check_backend(on)
    chosen = check_precision(precision, on)
    sampled = find_networks(task.value, family, img_size=parse_size(size))
    check_writable(output or cache_folder() / "latency" / "model.json")

    import torch

    from scalenet_zoo.latency.model import make_latency_model, model_path
    from scalenet_zoo.latency.plan import QUICK, Plan
    from scalenet_zoo.latency.profile import Settings

    require_backend(on)
    settings = Settings(
        family=latency_name(sampled),
        backend=on,
        precision=chosen,
        threads=threads or torch.get_num_threads(),
        batch=batch,
        divisor=divisor or 8,
    )
    given = {"layers": layers, "networks": networks, "held_out": held_out}
    changed = {key: value for key, value in given.items() if value is not None}
    plan = (QUICK if quick else Plan()).model_copy(update={**changed, "seed": seed})
    path = output or model_path(settings)
    with progress_lines() as advance:
        model = make_latency_model(sampled, settings, plan, path, advance)
    if as_json:
        print_json(
            {
                "file": str(path),
                "settings": model.settings.model_dump(),
                "yardstick_ms": model.yardstick,
                "held_out": model.held_out.model_dump(),
                "macs_alone": model.macs_alone.model_dump(),
            }
        )
        return
    typer.echo(f"wrote {path}\n")
    rows = (("latency model", model.held_out), ("MACs alone", model.macs_alone))
    print_table(
        (f"{model.held_out.networks} networks held out", "within 10%", "within 5%", "rms", "worst", "Spearman"),
        (
            (name, f"{a.within_10:.0%}", f"{a.within_5:.0%}", f"{a.rms:.1%}", f"{a.worst:.1%}", f"{a.spearman:.4f}")
            for name, a in rows
        ),
        align="lrrrrr",
    )
