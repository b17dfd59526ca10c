"""Commands that run on several processes: of torchrun or accelerate launch."""

import os


def is_first() -> bool:
    """Whether this process is the one that tells people."""
    return os.environ.get("RANK", "0") == "0"


def leave() -> None:
    """Leave the other processes, if there are some."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
