"""`python -m scalenet_zoo`: the command line, for launchers such as torchrun."""

from scalenet_zoo.cli import main

main()
