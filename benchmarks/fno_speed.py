"""A training step and inference beside neuraloperator: the same weights, batch and precision, on a GPU or the CPU."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from _results import alternate, record

from sciml.operators import from_legacy

warnings.simplefilter("ignore")
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


GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


def models(dim: int, modes: int, width: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return ours and theirs, on the GPU if there is one."""
    from neuralop.models import FNO

    torch.manual_seed(0)
    peer = FNO(n_modes=(modes,) * dim, in_channels=1, out_channels=1, hidden_channels=width)
    return from_legacy(peer.state_dict()).to(DEVICE), peer.to(DEVICE)


def step(model: torch.nn.Module, a: torch.Tensor) -> None:
    """Forward and backward."""
    model.zero_grad()
    model(a).square().mean().backward()


@torch.no_grad()
def infer(model: torch.nn.Module, a: torch.Tensor) -> None:
    """Forward."""
    model(a)


def peak(case: int, which: int) -> float:
    """Return the memory that three training steps add, in MB: a GPU's, else that of a fresh process."""
    if GPU:
        return measured_peak(case, which)
    command = [sys.executable, __file__, str(case), str(which)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def measured_peak(case: int, which: int) -> float:
    """Return what three training steps add to this process."""
    dim, modes, width, space, batch = CASES[case]
    model = models(dim, modes, width)[which]
    a = torch.randn(batch, *((*space, 1) if which == 0 else (1, *space))).to(DEVICE)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    before = high_water()
    for _ in range(3):
        step(model, a)
    return (high_water() - before) / 1e6


def high_water() -> int:
    """Return the most memory that there has been, in bytes (of getrusage, a parent's is inherited)."""
    if GPU:
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]


def main() -> None:
    import neuralop

    rows: list[list[object]] = []
    for case, (dim, modes, width, space, batch) in enumerate(CASES):
        ours, peer = models(dim, modes, width)
        first = torch.randn(batch, 1, *space).to(DEVICE)
        last = first.movedim(1, -1).contiguous()
        seconds = {}
        for name, work in (("step", step), ("inference", infer)):
            seconds[name] = alternate(
                {
                    "ours": lambda work=work, ours=ours, a=last: work(ours, a),
                    "peer": lambda work=work, peer=peer, a=first: work(peer, a),
                },
                repeats=21 if GPU else 5,
                gpu=GPU,
            )
        with torch.no_grad():
            difference = float((ours(last) - peer(first).movedim(1, -1)).abs().max())
        del ours, peer, first, last
        memory = [peak(case, which) for which in (0, 1)]
        cells: list[object] = [f"{' x '.join(map(str, space))}", batch, modes, width]
        for name in ("step", "inference"):
            a, b = seconds[name]["ours"], seconds[name]["peer"]
            cells += [f"{1e3 * a:.3g}", f"{1e3 * b:.3g}", f"{b / a:.2f}"]
        rows.append([*cells, *(f"{value:.0f}" for value in memory), f"{difference:.0e}"])
        print(rows[-1], flush=True)
    unit = "ms" if GPU else "CPU ms"
    record(
        "fno_speed_gpu" if GPU else "fno_speed",
        "FNO of four layers beside neuraloperator's with the same weights, float32, on "
        + ("a GPU" if GPU else "the CPU"),
        [
            "grid",
            "batch",
            "modes",
            "width",
            f"step, {unit}",
            "neuraloperator",
            "ratio",
            f"inference, {unit}",
            "neuraloperator",
            "ratio",
            "memory of a step, MB",
            "neuraloperator",
            "largest difference",
        ],
        rows,
        f"neuraloperator {neuralop.__version__}, its default architecture. A step is forward and backward. "
        + (
            f"Medians of 21 runs in turn on one {torch.cuda.get_device_name()}; memory: the GPU's. "
            if GPU
            else f"Medians of 5 runs in turn, {torch.get_num_threads()} thread(s). Memory: what three steps add to a "
            "fresh process. "
        )
        + "On grids with an odd number of nodes on another axis than the last, neuraloperator's outputs are wrong.",
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measured_peak(int(sys.argv[1]), int(sys.argv[2])))
    else:
        main()
