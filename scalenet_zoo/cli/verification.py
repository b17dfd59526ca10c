"""What `build` and `export` tell of a checked export."""

import typer

from scalenet_zoo.cli.console import print_table
from scalenet_zoo.export.verify import Verification
from scalenet_zoo.predict import describe, row_text
from scalenet_zoo.spec import ArchSpec


def print_verification(spec: ArchSpec, check: Verification) -> None:
    """What the network and its exported file say about a photograph, how far apart, and how fast."""
    typer.echo()
    rows = zip(describe(spec, check.expected), describe(spec, check.found), strict=True)
    print_table(
        ("", "PyTorch", "ONNX Runtime"),
        [
            *(
                (f"{check.photograph} {i}", row_text(ours), row_text(theirs))
                for i, (ours, theirs) in enumerate(rows, 1)
            ),
            ("latency, 1 image", f"{check.torch_ms:.2f} ms", f"{check.onnxruntime_ms:.2f} ms"),
        ],
        align="lll",
    )
    typer.echo(
        f"largest difference {check.difference:.2g}, {check.relative:.2g} of the largest output"
        f" (batches of 1 and 3); {check.threads} CPU threads"
    )


def verification_json(spec: ArchSpec, check: Verification) -> dict[str, object]:
    """The same for programs."""
    return {
        "photograph": check.photograph,
        "torch": {"predictions": describe(spec, check.expected), "latency_ms": check.torch_ms},
        "onnxruntime": {"predictions": describe(spec, check.found), "latency_ms": check.onnxruntime_ms},
        "difference": check.difference,
        "relative_difference": check.relative,
        "threads": check.threads,
    }
