"""Targets and losses: steps in a row, gradients, equations, noise; each against what it is by definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sciml.datasets import FieldsDataset, generate
from sciml.datasets.recipes import (
    AllenCahnRecipe,
    BurgersRecipe,
    DarcyRecipe,
    GrayScottRecipe,
    HeatStarRecipe,
    NavierStokesRecipe,
)
from sciml.errors import ConfigError, ConvergenceError
from sciml.files import read_json
from sciml.metrics import relative_h1, relative_l2
from sciml.operators import FNO, FNOConfig, Operator
from sciml.training import TrainConfig, train
from sciml.training.data import advance, load_pairs
from sciml.training.objective import Objective, fit_normalisers
from sciml.training.physics import PeriodicResidual
from sciml.training.prediction import predict, predict_pairs, roll_out


@pytest.fixture(scope="module")
def burgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = BurgersRecipe(resolution=64, frames=9, modes=20, viscosity=0.02)
    return generate(recipe, 24, tmp_path_factory.mktemp("data") / "burgers.h5")


@pytest.fixture(scope="module")
def gray_scott(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = GrayScottRecipe(resolution=32, refine=4, frames=5, final_time=20.0)
    return generate(recipe, 3, tmp_path_factory.mktemp("data") / "gray.h5")


class Doubling(Operator):
    """Twice the last of two frames of two channels."""

    config_type = FNOConfig

    def check_resolution(self, space: tuple[int, ...]) -> None:
        pass

    def map_normalised(self, a: Tensor) -> Tensor:
        return 2 * a[..., 2:4] * self.scale

    def __init__(self, in_channels: int, periodic: tuple[bool, ...]) -> None:
        super().__init__(in_channels, 2, periodic)
        self.scale = torch.nn.Parameter(torch.ones(()))


def test_frames_of_a_step(gray_scott: Path) -> None:
    with FieldsDataset(gray_scott) as data:
        frames = torch.stack([torch.from_numpy(data[name][:]) for name in data.targets], -1)
    pairs = load_pairs(gray_scott, 2, "step", 2)
    frames = frames[:, :, ::2, ::2]
    assert pairs.inputs.shape == (3, 16, 16, 4)
    assert torch.equal(pairs.inputs, torch.cat([frames[:, 0], frames[:, 1]], -1))
    assert torch.equal(pairs.targets, frames[:, 2:].movedim(1, -2))
    assert pairs.windows == 3
    for start in range(3):
        inputs, targets = pairs.window(1, start, 3 - start)
        assert torch.equal(inputs, torch.cat([frames[1, start], frames[1, start + 1]], -1))
        assert torch.equal(targets, frames[1, start + 2 :].movedim(0, -2))
    later = load_pairs(gray_scott, 2, "step", 2, start=1)
    assert torch.equal(later.inputs, torch.cat([frames[:, 1], frames[:, 2]], -1))
    assert torch.equal(later.targets, frames[:, 3:].movedim(1, -2))


def test_what_is_constant_stays(tmp_path: Path) -> None:
    path = generate(HeatStarRecipe(resolution=33), 2, tmp_path / "heat.h5")
    with FieldsDataset(path) as data:
        u, mask = torch.from_numpy(data["u"][:]), torch.from_numpy(data["mask"][:])
    pairs = load_pairs(path, 1, "step", 2)
    assert torch.equal(pairs.inputs, torch.stack([u[:, 0], u[:, 1], mask], -1))
    inputs, _ = pairs.window(0, 1, 1)
    assert torch.equal(inputs, torch.stack([u[0, 1], u[0, 2], mask[0]], -1))
    assert pairs.target_mask is not None
    assert torch.equal(pairs.target_mask[..., 3, 0], mask)
    assert torch.equal(
        advance(pairs.inputs, u[:, 2, ..., None], 2), torch.stack([u[:, 1], u[:, 2], mask], -1)
    )


def test_a_roll_out_feeds_on_itself(gray_scott: Path) -> None:
    pairs = load_pairs(gray_scott, 2, "step", 2)
    model = Doubling(4, pairs.periodic)
    frames = roll_out(model, pairs.inputs, 2, 3, batch_size=2)
    for step in range(3):
        assert torch.equal(frames[..., step, :], 2.0 ** (step + 1) * pairs.inputs[..., 2:4])
    assert torch.equal(predict_pairs(model, pairs), frames)
    model.adds_to = 2
    assert torch.equal(model(pairs.inputs), 3 * pairs.inputs[..., 2:4])


def test_losses_of_steps_in_a_row(gray_scott: Path) -> None:
    pairs = load_pairs(gray_scott, 2, "step", 2)
    objective = Objective(TrainConfig(task="step", n_in=2, unroll=2), pairs)
    assert len(objective) == 3 * 2
    model = Doubling(4, pairs.periodic)
    losses = objective.losses(model, *objective.batch(model, np.array([0, 3]), 0, 0))
    for loss, (row, start) in zip(losses, ((0, 0), (1, 1)), strict=True):
        inputs, targets = pairs.window(row, start, 2)
        errors = [relative_l2(2.0**s * inputs[None, ..., 2:4], targets[None, ..., s - 1, :]) for s in (1, 2)]
        assert float(loss.detach()) == pytest.approx(float(sum(errors)) / 2, rel=1e-6)
    losses.sum().backward()
    through = float(model.scale.grad)
    # With the push-forward the losses are the same, and the second step's input is a constant.
    model.zero_grad()
    pushed = Objective(TrainConfig(task="step", n_in=2, unroll=2, pushforward=True), pairs)
    losses = pushed.losses(model, *pushed.batch(model, np.array([0, 3]), 0, 0))
    losses.sum().backward()
    scale = torch.ones((), requires_grad=True)
    for row, start in ((0, 0), (1, 1)):
        inputs, targets = pairs.window(row, start, 2)
        for s in (1, 2):
            error = relative_l2(scale * 2.0**s * inputs[None, ..., 2:4], targets[None, ..., s - 1, :])
            (error.sum() / 2).backward()
    assert float(model.scale.grad) == pytest.approx(float(scale.grad), rel=1e-5)
    assert through != pytest.approx(float(scale.grad), rel=1e-2)


def test_noise_is_a_function_of_the_sample(burgers: Path) -> None:
    pairs = load_pairs(burgers, 1, "step", 2)
    model = FNO(2, 1, (True,), modes=(4,), width=2)
    fit_normalisers(model, pairs, increments=False)
    noisy = Objective(TrainConfig(task="step", n_in=2, noise=0.1), pairs)
    inputs = torch.zeros(300, 64, 2)
    samples = np.arange(300)
    draws = noisy._noisy(model, inputs, samples, epoch=1)
    assert float(draws.std()) == pytest.approx(0.1 * float(model.input_std[0]), rel=0.02)
    assert abs(float(draws.mean())) < 0.002
    assert torch.equal(noisy._noisy(model, inputs[:2], samples[5:7], epoch=1), draws[5:7])
    assert not torch.equal(noisy._noisy(model, inputs[:2], samples[5:7], epoch=2), draws[5:7])


def test_normalisers_of_steps(burgers: Path) -> None:
    with FieldsDataset(burgers) as data:
        u = torch.from_numpy(data["u"][:]).double()
    pairs = load_pairs(burgers, 1, "step", 2)
    model = FNO(2, 1, (True,), modes=(4,), width=2)
    fit_normalisers(model, pairs, increments=False)
    assert torch.allclose(model.input_std.double(), u.std().expand(2), rtol=1e-5)
    assert torch.allclose(model.output_std.double(), u.std(), rtol=1e-5)
    fit_normalisers(model, pairs, increments=True)
    assert torch.allclose(model.output_std.double(), u.diff(dim=1).std(), rtol=1e-5)


@pytest.mark.parametrize(
    ("epochs", "extra"),
    [(4, {}), (3, {"increments": True, "noise": 0.01}), (3, {"unroll": 2, "pushforward": True})],
)
def test_training_of_steps(burgers: Path, tmp_path: Path, epochs: int, extra: dict) -> None:
    config = TrainConfig(task="step", n_in=2, epochs=epochs, batch_size=12, lr=1e-2, **extra)
    result = train(config, burgers, tmp_path / "run", model=FNOConfig(modes=(12,), width=8))
    assert result["test_relative_l2"] < 0.7 * result["history"][0]["test_relative_l2"]
    model = FNO.load(tmp_path / "run")
    assert model.adds_to == (1 if extra.get("increments") else None)
    pairs = load_pairs(burgers, 1, "step", 2).subset(slice(22, 24))
    # The error is that of the whole roll-out, all frames together.
    error = relative_l2(predict_pairs(model, pairs), pairs.targets).mean()
    assert float(error) == pytest.approx(result["test_relative_l2"], rel=1e-5)


def test_h1_is_the_metric(burgers: Path) -> None:
    pairs = load_pairs(burgers)
    model = FNO(1, 1, (True,), modes=(4,), width=2)
    rows = np.array([3, 1])
    objective = Objective(TrainConfig(loss="h1"), pairs)
    losses = objective.losses(model, *objective.batch(model, rows, 0, 0))
    expected = relative_h1(model(pairs.inputs[rows]), pairs.targets[rows], (1 / 64,), (True,))
    assert torch.allclose(losses, expected)


RECIPES = [
    BurgersRecipe(resolution=128, frames=41, viscosity=0.02, modes=8, step=1e-3),
    NavierStokesRecipe(resolution=32, refine=2, frames=41, final_time=10.0, modes=4),
    AllenCahnRecipe(resolution=64, frames=41, final_time=2.0),
    GrayScottRecipe(resolution=64, refine=2, frames=41, final_time=160.0),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_residuals_of_solutions_vanish_at_fourth_order(recipe, tmp_path: Path) -> None:
    """With every, every second, fourth and eighth frame; fronts and float32 blur the order."""
    path = generate(recipe, 1, tmp_path / "data.h5")
    errors = []
    for skip in (1, 2, 4, 8):
        pairs = load_pairs(path, 1, "spacetime", 1)
        with FieldsDataset(path) as data:
            frames = torch.stack([torch.from_numpy(data[name][:]) for name in data.targets], -1)
        residual = PeriodicResidual(pairs)
        residual.interval *= skip
        # From the middle on, past the fastest transients.
        values = frames[:, ::skip].movedim(1, -2).double()[..., -(20 // skip + 1) :, :]
        change = (values[..., 2:, :] - values[..., :-2, :]) / (2 * residual.interval)
        errors.append(float(residual(values).norm() / change.norm()))
    assert errors[0] < 3e-5
    assert 2.9 < np.log2(errors[3] / errors[2]) < 4.1, errors


def test_gradients_of_residuals(burgers: Path) -> None:
    """Automatic derivatives through the spectral solver agree with differences."""
    residual = PeriodicResidual(load_pairs(burgers, 2, "spacetime", 1))
    u = torch.randn(1, 32, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(residual, (u.requires_grad_(),), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: type(recipe).__name__)
def test_gradients_of_other_equations(recipe, tmp_path: Path) -> None:
    from sciml.solvers.spectral import SpectralSolver

    grid = type(recipe)(resolution=8).grid()
    solver = SpectralSolver(recipe.pde(), grid, step=1.0)
    shape = (1, solver.equation.components, *grid.shape)
    u = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(solver.rate, (u.requires_grad_(),), atol=1e-6, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"u of dtype torch\.int64: give float32 or float64"):
        solver.rate(u.detach().long())
    assert torch.allclose(solver.rate(u).detach(), torch.from_numpy(solver.rate(u.detach().numpy())))


def test_physics_helps_where_data_are_few(burgers: Path, tmp_path: Path) -> None:
    model = FNOConfig(modes=(16, 6), width=8)
    results = {}
    for weight in (0.0, 0.1):
        config = TrainConfig(task="spacetime", physics=weight, n_train=4, n_test=12, epochs=30, batch_size=2)
        results[weight] = train(config, burgers, tmp_path / f"run{weight}", model=model)
    assert results[0.1]["test_relative_l2"] < results[0.0]["test_relative_l2"]


def test_what_does_not_fit_is_named(burgers: Path, tmp_path: Path) -> None:
    for wrong, message in (
        ({"unroll": 2}, "unroll=2: it belongs to task='step'"),
        ({"task": "final", "noise": 0.1}, "noise=0.1: it belongs to task='step'"),
        ({"task": "step", "pushforward": True}, "two steps in a row"),
        ({"task": "step", "physics": 1.0}, "physics=1.0: it belongs to task='spacetime'"),
        ({"task": "stepp"}, "task='stepp': choose auto, steady, final, spacetime, step"),
        ({"loss": "l1"}, "loss='l1': choose l2, h1"),
        ({"ema": 1.0}, r"ema=1.0: choose a decay"),
        ({"patience": 3}, "needs validation samples"),
    ):
        with pytest.raises(ConfigError, match=message):
            TrainConfig(**wrong)
    with pytest.raises(ConfigError, match="unroll=9: 8 frames follow"):
        train(TrainConfig(task="step", unroll=9), burgers, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"start=3, n_in=1 and n_out=6 need 10 frames, .* has 9"):
        load_pairs(burgers, 1, "step", n_out=6, start=3)
    with pytest.raises(ConfigError, match=r"loss='h1' on 64 x 2 nodes: differences need three"):
        train(TrainConfig(task="spacetime", n_out=2, loss="h1"), burgers, tmp_path / "run")
    darcy = generate(DarcyRecipe(resolution=9), 2, tmp_path / "darcy.h5")
    with pytest.raises(ConfigError, match="holds a steady problem"):
        load_pairs(darcy, task="step")
    heat = generate(HeatStarRecipe(resolution=33), 3, tmp_path / "heat.h5")
    with pytest.raises(ConfigError, match="recipe is 'heat-star', not one on a periodic box"):
        train(TrainConfig(task="spacetime", physics=1.0), heat, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_by_validation_is_kept(burgers: Path, tmp_path: Path) -> None:
    """An overfitting run stops early, and its result is the weights of its best epoch."""
    config = TrainConfig(
        epochs=40, n_train=4, n_valid=6, n_test=6, batch_size=4, lr=2e-2, schedule="constant", patience=5
    )
    result = train(config, burgers, tmp_path / "run", model=FNOConfig(modes=(16,), width=16))
    history = read_json(tmp_path / "run" / "history.json")
    errors = [record["valid_relative_l2"] for record in history]
    best = int(np.argmin(errors))
    assert len(history) == best + 6 < 40
    assert result["test_relative_l2"] == history[best]["test_relative_l2"]
    assert result["epoch"] == best
    pairs = load_pairs(burgers)
    for name in ("model.safetensors", "best.safetensors"):
        model = FNO.load(tmp_path / "run" / name)
        for part, key in ((slice(12, 18), "valid"), (slice(18, 24), "test")):
            some = pairs.subset(part)
            error = relative_l2(predict_pairs(model, some), some.targets).mean()
            assert float(error) == pytest.approx(history[best][f"{key}_relative_l2"], rel=1e-5)
    again = train(config, burgers, tmp_path / "run", model=FNOConfig(modes=(16,), width=16), resume=True)
    assert again["history"] == result["history"]


def test_the_best_weights_are_those_of_the_run_that_ends(burgers: Path, tmp_path: Path, monkeypatch) -> None:
    """Killed between the best model's file and the checkpoint, and resumed where numbers come out differently."""
    from sciml.training import loop

    errors = iter([0.5, 0.1, 0.4, 0.2, 0.3])
    monkeypatch.setattr(loop.Trainer, "_error", lambda trainer, pairs: 1.0)
    record = loop.Trainer._record
    kept: dict[int, Tensor] = {}

    def observed(trainer, state, started: float) -> dict[str, float]:
        if state.epoch == 1 and len(kept) == 2:
            raise KeyboardInterrupt
        found = {**record(trainer, state, started), "valid_relative_l2": next(errors)}
        kept[state.epoch] = trainer.model.projection[0].weight.detach().clone()
        return found

    monkeypatch.setattr(loop.Trainer, "_record", observed)
    config, model = TrainConfig(epochs=3, n_valid=4, lr=1e-2), FNOConfig(modes=(4,), width=4)
    save = loop.save_checkpoint

    def not_after_the_second(*arguments) -> None:
        if arguments[-1].epoch == 2 and len(kept) == 2:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(loop, "save_checkpoint", not_after_the_second)
    with pytest.raises(KeyboardInterrupt):
        train(config, burgers, tmp_path / "run", model=model, checkpoint_seconds=0)
    kept[9] = torch.zeros(())
    result = train(config, burgers, tmp_path / "run", model=model, resume=True)
    # 0.5, then after the interruption 0.4 and 0.2: the 0.1 of the first session is not in the history.
    assert result["epoch"] == 2
    assert torch.equal(FNO.load(tmp_path / "run").projection[0].weight, kept[2])


def test_a_roll_out_that_diverges_does_not_end_the_training(
    burgers: Path, tmp_path: Path, monkeypatch
) -> None:
    from sciml.training import loop

    found = iter([math.inf, math.nan, 0.3, 0.4, 0.2, 0.5])
    monkeypatch.setattr(loop.Trainer, "_error", lambda trainer, pairs: next(found))
    config = TrainConfig(task="step", epochs=3, n_valid=4)
    result = train(config, burgers, tmp_path / "run", model=FNOConfig(modes=(4,), width=4))
    assert [record["valid_relative_l2"] for record in result["history"]] == [1e30, 0.3, 0.2]
    assert [record["test_relative_l2"] for record in result["history"]] == [1e30, 0.4, 0.5]
    assert result["test_relative_l2"] == 0.5
    assert (tmp_path / "run" / "report.html").exists()


def test_a_gradient_that_is_not_finite_reaches_no_checkpoint(
    burgers: Path, tmp_path: Path, monkeypatch
) -> None:
    from sciml.training import loop

    batch, losses, at = loop.Objective.batch, loop.Objective.losses, []

    def noted(objective, model, samples: np.ndarray, epoch: int, step: int) -> tuple:
        at.append((epoch, step))
        return batch(objective, model, samples, epoch, step)

    def poisoned(*given) -> Tensor:
        found = losses(*given)
        # Finite, but for its derivative.
        return found if at[-1] != (1, 1) else found + (found - found.detach()).abs().sqrt() * 0

    monkeypatch.setattr(loop.Objective, "batch", noted)
    monkeypatch.setattr(loop.Objective, "losses", poisoned)
    with pytest.raises(
        ConvergenceError, match=r"the gradient became nan in epoch 1, batch 1 \(samples .*--overwrite"
    ):
        train(
            TrainConfig(batch_size=8),
            burgers,
            tmp_path / "run",
            model=FNOConfig(modes=(4,), width=4),
            checkpoint_seconds=0,
        )
    tensors = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(torch.isfinite(values).all() for values in tensors.values())


def test_averages_of_weights(burgers: Path, tmp_path: Path, monkeypatch) -> None:
    """The average is that of its recursion, is what is tested and kept, and resumes."""
    from sciml.training import loop

    seen: list[dict[str, Tensor]] = []
    step = loop.Trainer._step

    def observed(trainer, epoch: int, batch: int) -> float:
        value = step(trainer, epoch, batch)
        seen.append({name: p.detach().clone() for name, p in trainer.model.named_parameters()})
        return value

    monkeypatch.setattr(loop.Trainer, "_step", observed)
    config = TrainConfig(ema=0.9, epochs=2, batch_size=6)
    model = FNOConfig(modes=(4,), width=4)
    train(config, burgers, tmp_path / "run", model=model)
    monkeypatch.undo()
    torch.manual_seed(0)
    average = dict(FNO(1, 1, (True,), model).named_parameters())
    for index, weights in enumerate(seen):
        decay = min(0.9, (1 + index) / (10 + index))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in weights}
    kept = dict(FNO.load(tmp_path / "run").named_parameters())
    assert all(torch.allclose(kept[name], average[name], atol=1e-6) for name in kept)

    save = loop.save_checkpoint

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", save_and_stop)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(config, burgers, tmp_path / "parts", model=model, resume=True, checkpoint_seconds=0)
    monkeypatch.undo()
    train(config, burgers, tmp_path / "parts", model=model, resume=True)
    parts = dict(FNO.load(tmp_path / "parts").named_parameters())
    assert all(torch.equal(kept[name], parts[name]) for name in kept)


def test_clipped_gradients(burgers: Path, tmp_path: Path, monkeypatch) -> None:
    norms = []
    step = torch.optim.AdamW.step

    def observed(optimiser, *arguments: object) -> None:
        norms.append(
            torch.cat([p.grad.flatten() for g in optimiser.param_groups for p in g["params"]]).norm().item()
        )
        step(optimiser, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", observed)
    train(TrainConfig(clip=1e-3, epochs=1), burgers, tmp_path / "run", model=FNOConfig(modes=(4,), width=4))
    assert max(norms) == pytest.approx(1e-3, rel=1e-4)


def test_mixed_precision(burgers: Path, tmp_path: Path) -> None:
    """Pointwise layers in bfloat16, Fourier transforms and weights in float32."""
    model = FNOConfig(modes=(12,), width=8, channel_mlp=0.5)
    results = [
        train(TrainConfig(epochs=3, precision=precision), burgers, tmp_path / precision, model=model)
        for precision in ("float32", "bfloat16")
    ]
    exact, mixed = (result["history"][0]["train_loss"] for result in results)
    assert exact != mixed
    assert mixed == pytest.approx(exact, rel=0.02)
    operator = FNO(1, 1, (True,), modes=(12,), width=8)
    layer, v = operator.layers[0].spectral, torch.randn(2, 64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(v, (64,)).dtype == torch.float32
        assert torch.equal(layer(v, (64,)), layer.float()(v, (64,)))
    assert all(p.dtype == torch.float32 for p in FNO.load(tmp_path / "bfloat16").parameters())


def test_tensorboard(burgers: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = FNOConfig(modes=(4,), width=4)
    result = train(TrainConfig(epochs=2), burgers, tmp_path / "run", model=model, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("train_loss")]
    assert logged == pytest.approx([record["train_loss"] for record in result["history"]], rel=1e-6)


def test_no_samples_have_predictions_without_any() -> None:
    model = FNO(in_channels=2, modes=(4, 4), width=4)
    none = torch.zeros(0, 7, 9, 2)
    assert predict(model, none).shape == (0, 7, 9, 1)
    assert roll_out(model, none, 2, 3).shape == (0, 7, 9, 3, 1)
