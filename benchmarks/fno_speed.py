"""A training step and inference beside neuraloperator: the same weights, batch and precision, on a GPU or the CPU."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from _fno_alone import CASES, DEVICE, GPU, their_model
from _results import record

from sciml.operators import from_legacy

ROUNDS = 1 if GPU else 3


def measured(case: int, library: str, file: Path) -> list[float]:
    """Return what a process of one library found."""
    command = [sys.executable, str(Path(__file__).with_name("_fno_alone.py")), str(case), library, str(file)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def compared(case: int) -> list[object]:
    """Return a row of the table."""
    _, modes, width, space, batch = CASES[case]
    peer = their_model(case)
    ours = from_legacy(peer.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        ours.save(file)
        rounds = [[measured(case, name, file) for name in ("sciml", "neuraloperator")] for _ in range(ROUNDS)]
    first = torch.randn(batch, 1, *space).to(DEVICE)
    with torch.no_grad():
        difference = ours.to(DEVICE)(first.movedim(1, -1).contiguous()) - peer.to(DEVICE)(first).movedim(
            1, -1
        )
    one, other = (
        [median(values) for values in zip(*each, strict=True)] for each in zip(*rounds, strict=True)
    )
    row: list[object] = [" x ".join(map(str, space)), batch, modes, width]
    for a, b in zip(one[2:4], other[2:], strict=True):
        row += [f"{a:.3g}", f"{b:.3g}", f"{b / a:.2f}"]
    for replayed in one[4:]:
        row += [f"{replayed:.3g}", f"{other[2] / replayed:.2f}"]
    for a, b in zip(one[:2], other[:2], strict=True):
        row += [f"{a:.0f}", f"{b:.0f}"]
    return [*row, f"{float(difference.abs().max()):.0e}"]


def main() -> None:
    import neuralop

    rows = []
    for case in range(len(CASES)):
        rows.append(compared(case))
        print(rows[-1], flush=True)
    unit, them = "ms" if GPU else "CPU ms", "neuraloperator"
    record(
        "fno_speed_gpu" if GPU else "fno_speed",
        "FNO of four layers beside neuraloperator's with the same weights, float32, on "
        + ("a GPU" if GPU else "the CPU"),
        [
            *("grid", "batch", "modes", "width"),
            *(f"step, {unit}", them, "ratio"),
            *(f"inference, {unit}", them, "ratio"),
            *(["step replayed, ms", "ratio"] if GPU else []),
            *("peak memory, MB", them, "added by steps, MB", them),
            "largest difference",
        ],
        rows,
        f"neuraloperator {neuralop.__version__}, its default architecture. A step is forward and backward. "
        f"Each library in processes of its own, {ROUNDS} in turn, medians of {21 if GPU else 7} runs"
        + (
            f" on one {torch.cuda.get_device_name()}; memory: the GPU's. Replayed: as training takes our steps, "
            "recorded as a CUDA graph. "
            if GPU
            else f", {torch.get_num_threads()} thread(s). Peak memory: of a process that imports the library, builds "
            "or loads the model and takes three steps. "
        )
        + "On grids with an odd number of nodes on another axis than the last, neuraloperator's outputs are wrong.",
    )


if __name__ == "__main__":
    main()
