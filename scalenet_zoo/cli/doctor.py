"""`doctor`: which back ends this machine has."""

import typer

from scalenet_zoo.cli.options import Json


def doctor_command(as_json: Json = False) -> None:
    """Say which back ends this machine has, in which versions, and what to install for the rest.

    Example: scalenet-zoo doctor
    """
    from scalenet_zoo.cli.console import print_json, print_table
    from scalenet_zoo.core.backends import find_backends, versions

    backends = find_backends()
    if as_json:
        print_json(
            {"versions": versions(), "backends": {b.name: {"ready": b.ready, "about": b.about} for b in backends}}
        )
        return
    print_table(("package", "version"), versions().items(), align="ll")
    typer.echo()
    print_table(
        ("back end", "ready", ""), ((b.name, "yes" if b.ready else "no", b.about) for b in backends), align="lll"
    )
