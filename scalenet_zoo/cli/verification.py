"""The output of `build` and `export` about a checked file."""

from typing import TYPE_CHECKING

import typer

from scalenet_zoo.cli.console import print_table, say

if TYPE_CHECKING:
    import numpy as np

    from scalenet_zoo.export.gain import Gain
    from scalenet_zoo.export.verify import Verification
    from scalenet_zoo.inference.predict import Row


def print_verification(check: "Verification") -> None:
    """Print the predictions of a network and of its exported file, their difference and their latencies."""
    from scalenet_zoo.inference.predict import row_text

    typer.echo()
    rows = zip(_rows(check, check.expected), _rows(check, check.found), strict=False)
    batch = check.batch_sizes[0]
    print_table(
        ("", "PyTorch", check.runtime),
        [
            *(
                (f"{check.photograph} {i}", row_text(ours), row_text(theirs))
                for i, (ours, theirs) in enumerate(rows, 1)
            ),
            (
                f"latency, {batch} image{'s' if batch > 1 else ''}",
                f"{check.torch_ms:.2f} ms",
                f"{check.exported_ms:.2f} ms",
            ),
        ],
        align="lww",
    )
    threads = f"{check.threads} CPU thread{'s' if check.threads > 1 else ''}"
    sizes = [str(size) for size in check.batch_sizes]
    batches = " and ".join(filter(None, (", ".join(sizes[:-1]), sizes[-1])))
    say(
        f"largest difference {check.difference:.2g}, {check.relative:.2g} of the largest output; root mean square"
        f" {check.noise:.2g} (batches of {batches}); {threads}"
    )
    if check.agreement:
        found = check.agreement
        say(f"agreement with the network: {found.measure} {found.share:.3f} on {found.images} images")


def _rows(check: "Verification", output: "np.ndarray") -> "list[Row]":
    from scalenet_zoo.inference.predict import describe_output

    metadata = check.metadata
    return describe_output(metadata.spec, output, form=metadata.options.output, names=metadata.class_names)


def print_gain(gain: "Gain") -> None:
    """Print how the latency of a file compares with fp32, and a warning if the file is slower."""
    ratio = f"{gain.ratio.median:.2f}x ({gain.ratio.low:.2f} to {gain.ratio.high:.2f})"
    times = f"{gain.latency.median:.2f} ms, fp32 {gain.fp32.median:.2f} ms"
    say(f"latency on {gain.backend}, measured in turn with fp32: {times}: {ratio}")
    if gain.slower:
        say(f"{gain.precision} is slower than fp32 on {gain.backend} here: prefer fp32, or another back end")


def verification_json(check: "Verification") -> dict[str, object]:
    """Return the same as plain values, for JSON."""
    agreement = check.agreement
    return {
        "photograph": check.photograph,
        "torch": {"predictions": _rows(check, check.expected), "latency_ms": check.torch_ms},
        check.runtime.replace(" ", "").lower(): {
            "predictions": _rows(check, check.found),
            "latency_ms": check.exported_ms,
        },
        "difference": check.difference,
        "relative_difference": check.relative,
        "noise": check.noise,
        "batch_sizes": check.batch_sizes,
        "params": check.params,
        "agreement": agreement and {"measure": agreement.measure, "share": agreement.share, "images": agreement.images},
        "threads": check.threads,
    }
