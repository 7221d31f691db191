"""Where mass goes from the origin: a mixture around images of digits, and a score model that was trained on them."""

import math

import torch
from _results import FOLDER, record
from matplotlib.figure import Figure
from torch import Tensor

from sciml.operators import Denoiser
from sciml.sampling import (
    DilationPath,
    Overdamped,
    Rule,
    ScoreDensity,
    anneal,
    levels,
    run_chains,
)
from sciml.sampling.targets import Density, digit_images, digits

N, STEPS, NOISE = 500, 1000, 0.1
IMAGES, LABELS = (torch.from_numpy(part) for part in digit_images())
MEAN = IMAGES.mean(0)
SHARES = torch.bincount(LABELS, minlength=10) / len(LABELS)


def trained(epochs: int = 60) -> ScoreDensity:
    """The score (D(x; s) - x) / s^2 of a denoiser of images, at the smallest noise that it is used with."""
    torch.manual_seed(0)
    model = Denoiser(1, 1, (False, False), width=32, depth=1, embedding=32)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    steps = epochs * (len(IMAGES) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    data = IMAGES.float().view(-1, 8, 8, 1)
    for step in range(steps):
        rows = torch.randint(len(data), (64,))
        # From a fifth of the noise that is asked for to far beyond the images.
        sigma = torch.exp(math.log(0.02) + math.log(5 / 0.02) * torch.rand(64))
        noised = data[rows] + sigma[:, None, None, None] * torch.randn(64, 8, 8, 1)
        loss = (
            (1 + (0.35 / sigma) ** 2) * (model(noised, sigma) - data[rows]).square().mean((1, 2, 3))
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step} of {steps}: loss {float(loss.detach()):.4f}", flush=True)
    model.eval()

    def score(x: Tensor) -> Tensor:
        images = x.float().view(-1, 8, 8, 1)
        clean = model(images, torch.full((len(x),), NOISE)).view_as(x)
        return (clean.to(x) - x) / NOISE**2

    return ScoreDensity(score, 64)


def classified(x: Tensor) -> list[object]:
    """Shares of digits by the nearest image, their total variation, how many images are near, and how near."""
    distance = torch.cdist(x, IMAGES)
    near = distance.argmin(1)
    shares = torch.bincount(LABELS[near], minlength=10) / len(x)
    return [
        *(f"{100 * share:.0f}" for share in shares.tolist()),
        f"{float((shares - SHARES).abs().sum() / 2):.2f}",
        len(near.unique()),
        f"{float(distance.amin(1).mean()):.2f}",
    ]


def main() -> None:
    torch.set_num_threads(1)
    exact = digits(NOISE)
    lam, safe = levels(STEPS, "linear", 1e-3), Rule("proportional", NOISE**2 / 2)
    far = Rule("drift", 2.0, cap=1.0)
    polish = {"polish": 100, "polish_step": NOISE**2 / 3}
    rows: list[list[object]] = []
    shown: dict[str, Tensor] = {"exact samples": exact.sample(N, 1)}
    targets: dict[str, Density] = {"mixture": exact, "score model": trained()}
    for name, target in targets.items():
        # A network takes its time.
        n = N if name == "mixture" else N // 4
        zero = torch.zeros(n, 64, dtype=torch.float64)
        found = {
            "ULA from the origin": run_chains(
                Overdamped(target, NOISE**2 / 2), zero, STEPS, observables={}
            ).x,
            "dilation R1": anneal(DilationPath(target), lam, safe, n).x,
            "dilation R2": anneal(DilationPath(target), lam, far, n, **polish).x,  # type: ignore[arg-type]
            "dilation R2, centred": anneal(DilationPath(target, MEAN), lam, far, n, **polish).x,  # type: ignore[arg-type]
        }
        for label, x in found.items():
            rows.append([name, label, *classified(x)])
            shown[f"{name}: {label}"] = x
            print(rows[-1], flush=True)
    rows.append(["mixture", "exact samples", *classified(shown["exact samples"])])
    record(
        "digits",
        f"Digits: share of each in {N} samples of 64 coordinates ({N // 4} of the score model), in per cent",
        ["target", "method", *map(str, range(10)), "total variation", "images met", "distance"],
        rows,
        f"Noise {NOISE} around 1797 images; {STEPS} evaluations, and 100 of polish after R2 (drifts of length 2, h up "
        "to 1). Samples count for the nearest image; the distance of exact ones is that of the noise. The score model "
        "is a U-Net denoiser trained on the same images, used at that noise; the dilated score is its rescaling.",
    )
    figure = Figure(figsize=(9, 1.0 * len(shown)), layout="constrained")
    for row, (label, x) in enumerate(shown.items()):
        for column in range(12):
            axes = figure.add_subplot(len(shown), 12, row * 12 + column + 1)
            axes.imshow(x[column].view(8, 8).float(), cmap="gray_r", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_title(label, fontsize=8, loc="left")
    figure.savefig(FOLDER.parent / "docs" / "digits.png", dpi=90)


if __name__ == "__main__":
    main()
