"""`doctor`: the back ends of this machine."""

import typer

from scalenet_zoo.cli.options import Json


def doctor_command(as_json: Json = False) -> None:
    """List the back ends of this machine, and what is missing.

    Prints the versions of packages, and what to install for the back ends that are not ready.

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
        ("back end", "ready", "about"), ((b.name, "yes" if b.ready else "no", b.about) for b in backends), align="llw"
    )
