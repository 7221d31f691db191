"""Several processes that train together, started by ``torchrun``.

Each takes its part of every batch; gradients are summed over all of them before a step, so that N processes
with batches of B do what one does with batches of N B, up to the order of the sums.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from sciml.errors import ConfigError

__all__ = ["Team", "resolve_device", "team"]


@dataclass(frozen=True)
class Team:
    """The processes of a run, seen from one of them.

    Attributes
    ----------
    rank, size : int
        Which one, and how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return which of ``count`` things in a row are this process's; some may have one more than others.

        Examples
        --------
        >>> [Team(rank, 3).part(8) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        share, more = divmod(count, self.size)
        start = self.rank * share + min(self.rank, more)
        return slice(start, start + share + (self.rank < more))

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes."""
        if self.size == 1:
            return
        tensors = list(tensors)
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(joined)
        for tensor, total in zip(tensors, joined.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def add_gradients(self, parameters: Iterable[nn.Parameter], more: Tensor) -> None:
        """Sum all gradients, those that are missing being zero, and one more tensor."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add([*(parameter.grad for parameter in parameters if parameter.grad is not None), more])

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """Join the processes that ``torchrun`` has started; without it there is one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    if "MASTER_ADDR" not in os.environ:
        raise ConfigError(f"WORLD_SIZE={size} without MASTER_ADDR: start several processes with torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def resolve_device(name: str) -> torch.device:
    """Return the device that a name means; "auto" is the GPU if there is one, and of several processes each has its
    own.

    Raises
    ------
    ConfigError
        If the device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r}: choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={name!r}: {torch.cuda.device_count()} GPUs are available here, choose cpu or auto"
        )
    return device
