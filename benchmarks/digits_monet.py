"""MONet, an MLP-Mixer and a convolutional net of one size on digits: accuracy, corrupted images, ablations."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from _results import FOLDER, record
from matplotlib.figure import Figure
from scipy import fft, ndimage
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor, nn
from torch.nn import functional

from sciml.networks import MONet, MuLayer
from sciml.sampling.targets import digit_images

EPOCHS, BATCH, SEEDS, RATES = 60, 64, (0, 1, 2), (3e-3, 1e-2, 3e-2)
Build = Callable[..., nn.Module]

PIXELS, LABELS = digit_images()
PIXELS = PIXELS.reshape(-1, 8, 8)
TRAIN, TEST = train_test_split(np.arange(len(LABELS)), train_size=1200, stratify=LABELS, random_state=0)
# Three of five folds: 720 images to choose on.
FOLDS = [
    (TRAIN[a], TRAIN[b])
    for a, b in StratifiedKFold(5, shuffle=True, random_state=0).split(TRAIN, LABELS[TRAIN])
][: len(SEEDS)]


class Mixer(nn.Module):
    """Tolstikhin et al., NeurIPS 2021, arXiv 2105.01601."""

    def __init__(self, width: int, depth: int, patch: int, tokens: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(1, width, patch, patch)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.mixers = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))
            for _ in range(depth)
            for size, hidden in (((8 // patch) ** 2, tokens), (width, channels))
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embedding(2 * x - 1).flatten(2).mT
        for number, mixer in enumerate(self.mixers):
            y = self.norms[number](z)
            z = z + (mixer(y) if number % 2 else mixer(y.mT).mT)
        return self.head(self.norms[-1](z).mean(1))


class Convolutional(nn.Sequential):
    def __init__(
        self, widths: tuple[int, ...], strides: tuple[int, ...], norm: Build = nn.BatchNorm2d
    ) -> None:
        layers: list[nn.Module] = []
        for a, b, stride in zip((1, *widths), widths, strides, strict=False):
            layers += [nn.Conv2d(a, b, 3, stride, 1, bias=False), norm(b), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x - 1)


def monet(product: bool = True, **settings: Any) -> MONet:
    """Without the product its learned share stays 0, and what feeds it is not learned."""
    model = MONet(1, 10, **{**BASE, **settings})
    for part in model.modules():
        if isinstance(part, MuLayer) and not product:
            assert part.alpha is not None
            nn.init.zeros_(part.alpha).requires_grad_(False)
            for unused in (part.B, part.D, part.norm_b):
                assert unused is not None
                unused.requires_grad_(False)
    return model


BASE: dict[str, Any] = {
    "depths": (1, 1),
    "widths": (32, 56),
    "patches": (2,),
    "expansion": 2,
    "rank_ratio": 4,
}
ONE: dict[str, Any] = {"depths": (2,), "widths": (56,)}
DEEP: dict[str, Any] = {"depths": (2, 2), "widths": (28, 40)}
WIDE: dict[str, Any] = {"depths": (1,), "widths": (128,), "expansion": 1}
# Of each kind that with the fewest wrong validation images first; `--shapes` compares them.
SHAPES: dict[str, list[Build]] = {
    "MONet": [
        partial(monet, **settings)
        for settings in ({}, ONE, ONE | {"patches": (4,)}, DEEP, {"widths": (32, 60), "rank_ratio": 8})
    ],
    "MLP-Mixer": [
        partial(Mixer, *sizes)
        for sizes in ((96, 2, 4, 16, 128), (64, 4, 4, 32, 92), (94, 2, 2, 48, 124), (64, 3, 2, 36, 120))
    ],
    "convolutions": [
        partial(Convolutional, widths, strides)
        for widths, strides in (
            ((48, 64, 44), (1, 2, 2)),
            ((24, 48, 96), (1, 2, 2)),
            ((32, 62, 62), (1, 2, 2)),
            ((32, 62, 62), (1, 2, 1)),
        )
    ],
}
# What is another kind of function gets a learning rate of its own, the others have that of MONet.
ABLATIONS: dict[str, tuple[bool, dict[str, Any]]] = {
    "shift off": (False, {"shift": False}),
    "product off": (True, {"product": False}),
    "batch norm": (True, {"norm": "batch"}),
    "batch norm, product off": (True, {"norm": "batch", "product": False}),
    "no norm": (True, {"norm": "none"}),
    "rank ratio 2": (False, {"rank_ratio": 2}),
    "rank ratio 8": (False, {"rank_ratio": 8}),
    "deeper, narrower: (2, 2) blocks of (28, 40)": (False, DEEP),
    "one stage: 2 blocks of 56": (False, ONE),
    "one stage, shift off": (False, ONE | {"shift": False}),
    "one stage, deeper: 6 blocks of 32": (False, {"depths": (6,), "widths": (32,)}),
    "one stage, wider: 1 block of 80": (False, {"depths": (1,), "widths": (80,)}),
    "1 block of 128, expansion 1, rank ratio 2": (False, WIDE | {"rank_ratio": 2}),
    "1 block of 128, expansion 1, rank ratio 8": (False, WIDE | {"rank_ratio": 8}),
    "1 block of 128, expansion 1, rank ratio 32": (False, WIDE | {"rank_ratio": 32}),
    "one stage, patches (2, 2), pyramid": (False, ONE | {"patches": (2, 2), "pyramid": True}),
    "one stage, patches (2, 2)": (False, ONE | {"patches": (2, 2)}),
    "one stage, patches (4,)": (False, ONE | {"patches": (4,)}),
}


def tensors(rows: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(PIXELS[rows]).float()[:, None], torch.from_numpy(LABELS[rows])


def moved(images: Tensor) -> Tensor:
    """Each image moved by at most one pixel along both axes."""
    padded = functional.pad(images, (1, 1, 1, 1))
    down, right = torch.randint(3, (2, len(images), 1, 1))
    rows, columns = torch.arange(8)[:, None] + down, torch.arange(8) + right
    return padded[torch.arange(len(images))[:, None, None], 0, rows, columns][:, None]


def fit(build: Build, rate: float, rows: np.ndarray, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model, (images, labels) = build(), tensors(rows)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, rate, weight_decay=0.05)
    size = len(rows) // BATCH * BATCH
    steps = EPOCHS * size // BATCH
    # A twentieth of the steps to warm up, then a cosine.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, 20 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(rows))[:size].split(BATCH):
            logits = model(moved(images[batch]))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(part) for part in images.split(1000)])


def validated(build: Build, rate: float) -> tuple[float, float]:
    """Share of wrong validation images and their cross-entropy."""
    errors, losses = [], []
    for seed, (train, held) in enumerate(FOLDS):
        images, labels = tensors(held)
        logits = logits_of(fit(build, rate, train, seed), images)
        errors.append(float((logits.argmax(1) != labels).float().mean()))
        losses.append(float(functional.cross_entropy(logits, labels).nan_to_num(math.inf)))
    return float(np.mean(errors)), float(np.mean(losses))


def size_of(build: Build) -> int:
    return sum(parameter.numel() for parameter in build().parameters() if parameter.requires_grad)


def displaced(images: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Linear interpolation at displaced pixels; the images are 0 around."""
    n, rows, columns = np.meshgrid(*map(np.arange, images.shape), indexing="ij")
    return ndimage.map_coordinates(images, [n, rows + down, columns + right], order=1, mode="grid-constant")


def direction(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    return np.sin(angle), np.cos(angle)


def smooth(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random fields that vary over about three pixels, of mean 0 and deviation 1 in each image."""
    fields = ndimage.gaussian_filter(rng.standard_normal((n, 14, 14)), (0, 1.5, 1.5))[:, 3:-3, 3:-3]
    fields = fields - fields.mean((1, 2), keepdims=True)
    return fields / fields.std((1, 2), keepdims=True)


def motion(x: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    down, right = direction(rng, len(x))
    return np.mean([displaced(x, t * down, t * right) for t in np.linspace(-s / 2, s / 2, 9)], 0)


def pixelate(x: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """Means over s x s equal squares, and back."""
    edges, fine = np.linspace(0, 8, int(s) + 1), np.arange(8)
    share = np.clip(np.minimum(edges[1:, None], fine + 1) - np.maximum(edges[:-1, None], fine), 0, None)
    both = share.T @ (share / share.sum(1, keepdims=True))
    return both @ x @ both.T


def jpeg(x: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """Rounded waves of the one block of 8 x 8, the short ones more coarsely, about as JPEG's table does it."""
    table = s / 255 * np.maximum(10, 3 + 7 * np.add.outer(np.arange(8), np.arange(8)))
    waves = fft.dctn(x - 0.5, axes=(1, 2), norm="ortho")
    return 0.5 + fft.idctn(np.round(waves / table) * table, axes=(1, 2), norm="ortho")


def occlusion(x: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """A grey rectangle of s pixels, as near to a square as they allow."""
    high = math.isqrt(int(s))
    wide = int(s) // high
    top, left = rng.integers(9 - high, size=(len(x), 1, 1)), rng.integers(9 - wide, size=(len(x), 1, 1))
    rows, columns = np.arange(8)[:, None], np.arange(8)
    inside = (rows >= top) & (rows < top + high) & (columns >= left) & (columns < left + wide)
    return np.where(inside, 0.5, x)


GROUPS = "noise", "blur", "weather", "digital"
# Group, corruption of images x at severity s, five severities: a good classifier starts well and ends badly.
CORRUPTIONS: dict[str, tuple[str, Callable[..., np.ndarray], tuple[float, ...]]] = {
    "gaussian": ("noise", lambda x, s, rng: x + s * rng.standard_normal(x.shape), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "shot": ("noise", lambda x, s, rng: rng.poisson(x * s) / s, (20, 8, 4, 2.5, 1.5)),
    "impulse": (
        "noise",
        lambda x, s, rng: np.where(rng.random(x.shape) < s, rng.integers(2, size=x.shape), x),
        (0.03, 0.06, 0.1, 0.15, 0.22),
    ),
    "blur": ("blur", lambda x, s, _: ndimage.gaussian_filter(x, (0, s, s)), (0.5, 0.6, 0.7, 0.85, 1)),
    "motion": ("blur", motion, (1, 2, 3, 4, 5)),
    "brightness": ("weather", lambda x, s, _: x + s, (0.08, 0.16, 0.24, 0.32, 0.4)),
    # As in ImageNet-C it is added, and the range scaled back.
    "fog": (
        "weather",
        lambda x, s, rng: (x + s * np.clip(0.5 + 0.25 * smooth(rng, len(x)), 0, 1)) / (1 + s),
        (0.2, 0.4, 0.6, 0.8, 1.1),
    ),
    "contrast": (
        "weather",
        lambda x, s, _: s * x + (1 - s) * x.mean((1, 2), keepdims=True),
        (0.8, 0.7, 0.6, 0.5, 0.35),
    ),
    "pixelate": ("digital", pixelate, (7, 6, 5, 4, 3)),
    "elastic": (
        "digital",
        lambda x, s, rng: displaced(x, s * smooth(rng, len(x)), s * smooth(rng, len(x))),
        (0.3, 0.5, 0.7, 0.9, 1.1),
    ),
    "JPEG": ("digital", jpeg, (2, 4, 6, 8, 11)),
    "translation": (
        "digital",
        lambda x, s, rng: displaced(x, *(s * part for part in direction(rng, len(x)))),
        (1, 1.5, 2, 2.5, 3),
    ),
    "occlusion": ("digital", occlusion, (4, 6, 9, 12, 16)),
}


def corrupted() -> dict[str, Tensor]:
    """Test images of each corruption, shape (5 * images, 1, 8, 8), the same for every model."""
    found = {}
    for number, (name, (_, corruption, severities)) in enumerate(CORRUPTIONS.items()):
        rngs = (np.random.default_rng([number, step]) for step in range(5))
        images = [corruption(PIXELS[TEST], s, rng) for s, rng in zip(severities, rngs, strict=True)]
        found[name] = torch.from_numpy(np.concatenate(images).clip(0, 1)).float()[:, None]
    return found


@dataclass
class Result:
    """Errors in per cent: on clean images for each seed, and of each corruption for each seed and severity."""

    name: str
    size: int
    rate: float
    seconds: float
    clean: np.ndarray
    errors: dict[str, np.ndarray]

    def group(self, group: str) -> np.ndarray:
        """Mean over the corruptions of a group."""
        return np.mean([self.errors[name] for name, values in CORRUPTIONS.items() if values[0] == group], 0)

    def ratios(self, baseline: "Result") -> dict[str, np.ndarray]:
        """Of each corruption and seed the summed errors over the mean ones of the baseline, in per cent."""
        return {n: 100 * e.sum(1) / baseline.errors[n].sum(1).mean() for n, e in self.errors.items()}


def measured(name: str, build: Build, rate: float | None, images: dict[str, Tensor]) -> Result:
    """Train and test; without a rate, with that of the fewest wrong validation images, then the smallest loss."""
    rate = rate or min(RATES, key=lambda rate: validated(build, rate))
    started = time.process_time()
    models = [fit(build, rate, TRAIN, seed) for seed in SEEDS]
    seconds = (time.process_time() - started) / len(SEEDS)
    clean, labels = tensors(TEST)

    def errors(shown: Tensor) -> np.ndarray:
        wrong = [logits_of(model, shown).argmax(1).view(-1, len(TEST)) != labels for model in models]
        return 100 * torch.stack(wrong).double().mean(-1).numpy()

    found = {corruption: errors(shown) for corruption, shown in images.items()}
    result = Result(name, size_of(build), rate, seconds, errors(clean)[:, 0], found)
    print(name, rate, f"{seconds:.1f} s, errors", result.clean, flush=True)
    return result


def spread(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def row(result: Result, baseline: Result) -> list[object]:
    return [
        result.name,
        f"{result.size:,}",
        f"{result.rate:g}",
        f"{result.seconds:.0f}",
        spread(100 - result.clean, 2),
        *(f"{result.group(group).mean():.1f}" for group in GROUPS),
        spread(100 - np.mean([errors.mean(1) for errors in result.errors.values()], 0), 1),
        spread(np.mean(list(result.ratios(baseline).values()), 0), 1),
    ]


def draw(results: list[Result]) -> None:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots(1, len(GROUPS), sharey=True)
    for ax, group in zip(axes, GROUPS, strict=True):
        for result in results:
            curves = 100 - np.column_stack([result.clean, result.group(group)])
            ax.errorbar(range(6), curves.mean(0), curves.std(0, ddof=1), label=result.name)
        ax.set(title=group, xlabel="severity")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend(fontsize=8)
    figure.savefig(FOLDER.parent / "docs" / "digits_monet.png", dpi=80)


def main() -> None:
    torch.set_num_threads(1)
    if "--shapes" in sys.argv:
        for name, builds in SHAPES.items():
            for build in builds:
                print(name, build, size_of(build), *validated(build, RATES[1]), flush=True)
        return
    images = corrupted()
    peers = [measured(name, builds[0], None, images) for name, builds in SHAPES.items()]
    baseline = peers[-1]
    # The peers differ in their norms as well: one convolutional net with the norm of the other two.
    normed = partial(SHAPES["convolutions"][0], norm=partial(nn.GroupNorm, 1))
    results = [*peers, measured("convolutions, layer norm", normed, None, images)]
    for name, (own, settings) in ABLATIONS.items():
        results.append(measured(name, partial(monet, **settings), None if own else peers[0].rate, images))
    draw(peers)
    listed = [", ".join(f"{n} {v.mean():.0f}" for n, v in peer.ratios(baseline).items()) for peer in peers]
    record(
        "digits_monet",
        f"MONet, its peers and its ablations on digits of 8 x 8: {len(TRAIN)} training, {len(TEST)} test images",
        [
            *("model", "parameters", "learning rate", "seconds", "test accuracy, %"),
            *(f"error, {group}, %" for group in GROUPS),
            *("corrupted accuracy, %", "mCE, %"),
        ],
        [row(result, baseline) for result in results],
        "MONet: stages of one block of 32 and one of 56 channels, expansion 2, rank ratio 4, patches of 2 pixels; rows "
        "after the convolutions change it as they say. Mixer: 2 blocks of 96 channels, patches of 4. Three "
        "convolutions with batch norm and ReLU, 48, 64 and 44 channels, strides 1, 2, 2, then the mean. One recipe: "
        f"{EPOCHS} epochs of AdamW, batches of {BATCH}, cosine, label smoothing 0.1, shifts by up to a pixel. Shapes "
        "(of four or five each, `--shapes`; of equals the fastest) and the learning rates of the models and of rows "
        f"with another norm or no product (of {RATES}) have the fewest wrong ones of 720 validation images, out of "
        "the training images; other "
        f"rows have MONet's rate. Means and deviations over {len(SEEDS)} seeds. Errors: means over 5 severities of "
        f"the group's corruptions, {len(CORRUPTIONS)} in all. mCE: summed errors over the convolutional net's, mean "
        f"over corruptions; MONet's: {listed[0]}; Mixer's: {listed[1]}. Without the product only parameters in use "
        "count; layer norms still divide by a deviation, batch norms leave an affine map of the image. The layer norm "
        "of the convolutions is over channels and pixels of an image. Figure: docs/digits_monet.png.",
    )


if __name__ == "__main__":
    main()
