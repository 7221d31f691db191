"""One library's FNO in a process of its own: time of a training step and of inference, and memory.

What one library leaves of the heap the other would find there, and imports are memory, too: nothing of ours is
imported for theirs, `_results` included. `fno_speed.py` starts it.
"""

import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

warnings.simplefilter("ignore")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
# Axes, modes, width, nodes, batch.
CASES = [
    (1, 32, 64, (1024,), 20),
    (1, 32, 64, (8192,), 5),
    (2, 24, 32, (43, 43), 20),
    (2, 24, 32, (64, 64), 20),
    (2, 24, 32, (85, 85), 20),
    (2, 24, 32, (128, 128), 5),
    (3, 8, 20, (32, 32, 20), 4),
    (3, 16, 20, (64, 64, 40), 2),
]


def their_model(case: int) -> torch.nn.Module:
    """Return neuraloperator's, of its default architecture, always with the same weights."""
    from neuralop.models import FNO

    dim, modes, width, _, _ = CASES[case]
    torch.manual_seed(0)
    return FNO(n_modes=(modes,) * dim, in_channels=1, out_channels=1, hidden_channels=width)


def our_model(file: str) -> torch.nn.Module:
    from sciml.operators import FNO

    return FNO.load(file)


def step(model: torch.nn.Module, a: torch.Tensor) -> None:
    """Forward and backward."""
    model.zero_grad()
    model(a).square().mean().backward()


def replayed(model: torch.nn.Module, a: torch.Tensor) -> Callable[..., None]:
    """Return `step` as our training takes it on a GPU."""
    from sciml.training.gradients import Gradients

    gradients = Gradients(model, lambda model, x, *others: model(x).square().flatten(1).mean(1))

    def run(model: torch.nn.Module, a: torch.Tensor) -> None:
        gradients((a, a, None), len(a))

    return run


@torch.no_grad()
def infer(model: torch.nn.Module, a: torch.Tensor) -> None:
    """Forward."""
    model(a)


def milliseconds(work: Callable[..., None], model: torch.nn.Module, a: torch.Tensor, repeats: int) -> float:
    """Return the median of CPU time, on a GPU of wall time until that is idle."""
    wait = torch.cuda.synchronize if GPU else lambda: None
    clock = time.perf_counter if GPU else time.process_time
    found = []
    for turn in range(-2, repeats):
        wait()
        started = clock()
        work(model, a)
        wait()
        if turn >= 0:
            found.append(1e3 * (clock() - started))
    return median(found)


def high_water() -> float:
    """Return the most memory that there has been, in MB (of getrusage, a parent's is inherited)."""
    if GPU:
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text()
    return 1.024e-3 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]


def main(case: int, library: str, file: str) -> None:
    model = (our_model(file) if library == "sciml" else their_model(case)).to(DEVICE)
    *_, space, batch = CASES[case]
    a = torch.randn(batch, *((*space, 1) if library == "sciml" else (1, *space))).to(DEVICE)
    before = high_water()
    for _ in range(3):
        step(model, a)
    memory = high_water()
    works = [step, infer, *([replayed(model, a)] if GPU and library == "sciml" else [])]
    times = [milliseconds(work, model, a, 21 if GPU else 7) for work in works]
    print(json.dumps([memory, memory - before, *times]))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
