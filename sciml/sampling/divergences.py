"""How far samples are from a density, by measures of which each is blind to something.

The kernelised Stein discrepancy needs the score alone, and does not see the weights of modes that are apart; the
maximum mean discrepancy and Sinkhorn's divergence compare with samples; a kernel density estimate gives a divergence
that is not 0 for exact samples. Weights of modes are counted by themselves. None is of use without the value that exact
samples have: `table` always has both.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError

from .targets import Density, Modes

__all__ = [
    "kde_divergence",
    "ksd_squared",
    "median_distance",
    "mmd_squared",
    "mode_weights",
    "modes_found",
    "sinkhorn_divergence",
    "table",
    "weight_error",
]

CHUNK = 2**22
"""Pairs in memory at a time."""
MOST_TRANSPORTED = 1000
"""Samples of Sinkhorn's divergence in a table."""
MOST_NEWTON = 60
"""Steps for one epsilon; a handful are enough."""


def _samples(name: str, x: Tensor) -> Tensor:
    if x.ndim != 2 or len(x) < 2:
        raise ConfigError(f"{name} of shape {tuple(x.shape)}: give two samples or more, (n, d)")
    if not torch.isfinite(x).all():
        raise ConfigError(
            f"{name}: {int((~torch.isfinite(x)).any(1).sum())} samples are not finite; leave them out"
        )
    return x.double()


def _blocks(x: Tensor, other: Tensor) -> list[slice]:
    rows = max(1, CHUNK // len(other))
    return [slice(first, first + rows) for first in range(0, len(x), rows)]


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances, without the cancellation of a product."""
    if x.shape[1] > 8:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    return sum((x[:, i : i + 1] - y[:, i]).square() for i in range(x.shape[1]))  # type: ignore[return-value]


def median_distance(x: Tensor) -> float:
    """Return the median distance between different samples, of 2000 of them at most.

    Examples
    --------
    >>> median_distance(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    x = _samples("x", x)
    x = x[:: -(-len(x) // 2000)]
    i, j = torch.triu_indices(len(x), len(x), 1)
    return float(_distances(x, x)[i, j].median().sqrt())


def ksd_squared(
    x: Tensor,
    score: Callable[[Tensor], Tensor],
    *,
    kernel: str = "imq",
    scale: float = 1.0,
    beta: float = -0.5,
    unbiased: bool = False,
) -> float:
    """Return the squared kernelised Stein discrepancy, n^-2 sum_ij k_pi(x_i, x_j).

    Small for samples that fit the density wherever they are. It does not see a mode that is missing.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    score : callable
        grad log pi of states (n, d).
    kernel : {"imq", "gaussian"}
        (1 + |r|^2 / l^2)^beta, which sees that samples do not converge (Gorham and Mackey, ICML 2017, arXiv
        1703.01717), or exp(-|r|^2 / (2 l^2)).
    scale : float
        l.
    beta : float
        Between -1 and 0.
    unbiased : bool
        Leave out i = j; the value may be negative then.

    Raises
    ------
    ConfigError
        If an argument cannot be used, or a score is not finite.

    Examples
    --------
    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)).double()
    >>> near, far = (ksd_squared(shifted, lambda x: -x) for shifted in (x, x + 1))
    >>> near < 0.02, far > 0.5
    (True, True)
    """
    x = _samples("x", x)
    if kernel not in ("imq", "gaussian") or not scale > 0 or not -1 < beta < 0:
        raise ConfigError(
            f"kernel={kernel!r}, scale={scale}, beta={beta}: choose imq or gaussian, scale > 0, -1 < beta < 0"
        )
    s = score(x)
    if s.shape != x.shape or not torch.isfinite(s).all():
        raise ConfigError(f"score: it must be finite and of shape {tuple(x.shape)}, not {tuple(s.shape)}")
    d, l2 = x.shape[1], scale**2
    # s(x) . (x - y) of all pairs by products.
    along = (s * x).sum(1)
    total = diagonal = 0.0
    for part in _blocks(x, x):
        r2 = _distances(x[part], x)
        ss = s[part] @ s.T
        sr = along[part, None] - s[part] @ x.T - x[part] @ s.T + along
        if kernel == "imq":
            base = 1 + r2 / l2
            power = base ** (beta - 2)
            values = power * (
                base * (base * ss - 2 * beta / l2 * (sr + d)) - 4 * beta * (beta - 1) / l2**2 * r2
            )
        else:
            values = torch.exp(-r2 / (2 * l2)) * (ss + sr / l2 + d / l2 - r2 / l2**2)
        total += float(values.sum())
        diagonal += float(torch.diagonal(values[:, part]).sum())
    n = len(x)
    return (total - diagonal) / (n * (n - 1)) if unbiased else total / n**2


def mmd_squared(x: Tensor, y: Tensor, scale: float | None = None, *, kernel: str = "gaussian") -> float:
    """Return the squared maximum mean discrepancy, unbiased: about 0 for samples of one law, maybe below.

    Parameters
    ----------
    x, y : Tensor, shapes (n, d) and (m, d)
    scale : float, optional
        r of exp(-|x - y|^2 / r^2); the median distance of y by default.
    kernel : {"gaussian", "mixed", "energy"}
        mixed: the mean of Gaussians of r / 4, r / 2, r, 2 r and 4 r; energy: -|x - y|, without a scale.

    Raises
    ------
    ConfigError
        If an argument cannot be used.

    Examples
    --------
    >>> x, y = torch.randn(2, 400, 1, generator=torch.Generator().manual_seed(0))
    >>> abs(mmd_squared(x, y)) < 0.01, mmd_squared(x, y + 2) > 0.3
    (True, True)
    """
    x, y = _samples("x", x), _samples("y", y)
    if x.shape[1] != y.shape[1] or kernel not in ("gaussian", "mixed", "energy"):
        raise ConfigError(
            f"x, y of {x.shape[1]} and {y.shape[1]} coordinates, kernel={kernel!r}: give as many of both, and "
            "gaussian, mixed or energy"
        )
    r = 1.0 if kernel == "energy" else median_distance(y) if scale is None else scale
    if not r > 0:
        raise ConfigError(f"scale={r}: it must be positive")
    factors = (0.25, 0.5, 1.0, 2.0, 4.0) if kernel == "mixed" else (1.0,)

    def total(a: Tensor, b: Tensor) -> float:
        result = 0.0
        for part in _blocks(a, b):
            square = _distances(a[part], b)
            if kernel == "energy":
                result -= float(square.sqrt().sum())
            else:
                result += sum(float(torch.exp(-square / (r * f) ** 2).sum()) for f in factors) / len(factors)
        return result

    n, m = len(x), len(y)
    own = 0.0 if kernel == "energy" else 1.0
    same = (total(x, x) - own * n) / (n * (n - 1)) + (total(y, y) - own * m) / (m * (m - 1))
    return same - 2 * total(x, y) / (n * m)


def sinkhorn_divergence(x: Tensor, y: Tensor, epsilon: float = 1.0, *, tolerance: float = 1e-8) -> float:
    """Return Sinkhorn's divergence, OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2, of samples with equal weights.

    OT(a, b) = min <P, C> + epsilon KL(P | a b) over couplings P, C the squared distances, so that it has the unit of
    a square: for a small epsilon it is the squared W_2 distance (Feydy et al., AISTATS 2019, arXiv 1810.08278).

    Between modes that are far apart Sinkhorn's sweeps move next to nothing, thousands of times. Here the dual problem
    is solved by Newton's method, in the log domain, for an epsilon that halves from the diameter on: some twenty
    systems of m equations, to all digits.

    Parameters
    ----------
    x, y : Tensor, shapes (n, d) and (m, d)
        Some thousands at most.
    epsilon : float
    tolerance : float
        Of the coupling's marginal, in total variation.

    Raises
    ------
    ConfigError
        If an argument cannot be used.
    ConvergenceError
        If epsilon is too small for double precision.

    Examples
    --------
    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).double()
    >>> round(sinkhorn_divergence(x, x + torch.tensor([3.0, 0.0]), 0.5), 6)  # a shift by 3
    9.0
    """
    x, y = _samples("x", x), _samples("y", y)
    if not epsilon > 0 or not tolerance > 0 or x.shape[1] != y.shape[1]:
        raise ConfigError(
            f"epsilon={epsilon}, tolerance={tolerance}, x, y of {x.shape[1]} and {y.shape[1]} coordinates: give "
            "positive numbers, and as many coordinates of both"
        )
    costs = (_transport(a, b, epsilon, tolerance) for a, b in ((x, y), (x, x), (y, y)))
    return next(costs) - sum(costs) / 2


def _transport(x: Tensor, y: Tensor, epsilon: float, tolerance: float) -> float:
    """Return OT of two sets: the largest value of the dual problem."""
    cost = _distances(x, y)
    current, g = max(float(cost.max()), epsilon), cost.new_zeros(len(y))
    # A single sample that must change its mode is to be seen at every epsilon.
    rough = 0.5 / max(cost.shape)
    while True:
        last = current == epsilon
        g, f, violation = _maximised(cost, g, current, tolerance if last else rough)
        if last:
            break
        current = max(current / 2, epsilon)
    if violation > 100 * tolerance:
        raise ConvergenceError(
            f"Sinkhorn's divergence: marginals differ by {violation:.2g} for epsilon={epsilon:g}, distances squared up "
            f"to {float(cost.max()):.3g}; take a larger epsilon"
        )
    return float(f.mean() + g.mean())


def _maximised(cost: Tensor, g: Tensor, epsilon: float, tolerance: float) -> tuple[Tensor, Tensor, float]:
    """Maximise mean f(g) + mean g, f what makes the rows of the coupling right; return also the columns' violation."""
    n, m = cost.shape

    def rows(g: Tensor) -> Tensor:
        return -epsilon * (torch.logsumexp((g - cost) / epsilon, 1) - math.log(m))

    f = rows(g)
    for _ in range(MOST_NEWTON):
        value = float(f.mean() + g.mean())
        coupling = torch.exp((f[:, None] + g - cost) / epsilon).div_(n * m)
        columns = coupling.sum(0)
        slope = 1 / m - columns
        violation = float(slope.abs().sum())
        if violation < tolerance:
            break
        # Minus the second derivative, times epsilon; a shift of all of g changes nothing, which the last term fixes.
        matrix = coupling.T @ coupling * -n
        matrix.diagonal().add_(columns + 1e-3 * min(violation, 1e-3) / m)
        step = epsilon * torch.linalg.solve(matrix + 1 / m**2, slope)
        gain, part, f_before = float(slope @ step), 1.0, f
        while part > 1e-3:
            moved = g + part * step
            f = rows(moved)
            if float(f.mean() + moved.mean()) >= value + 1e-4 * part * gain - 1e-13 * abs(value):
                break
            part /= 2
        else:
            # Far from the solution the second derivative says little: a sweep of Sinkhorn's, which cannot fail.
            moved = -epsilon * (torch.logsumexp((f_before - cost.T) / epsilon, 1) - math.log(n))
            f = rows(moved)
        g = moved
    return g, f, violation


def kde_divergence(x: Tensor, target: Density, *, leave_one_out: bool = False) -> float:
    """Return KL(q | pi), q a Gaussian kernel density estimate of the samples (Scott's factor, full covariance).

    Of exact samples it is not 0: with modes that are apart the covariance is far too wide, and q too flat (-1.6 on
    gmm40). Say it beside every value, and in more than 5 coordinates do not use it.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    target : Density
        Whose ``log_z`` is known.
    leave_one_out : bool
        Leave each sample out of the estimate at it.

    Raises
    ------
    ConfigError
        If the target's constant is not known, or d > 5.

    Examples
    --------
    >>> from sciml.sampling.targets import IsotropicMixture
    >>> normal = IsotropicMixture([1.0], [[0.0]], 1.0)
    >>> abs(kde_divergence(normal.sample(1000), normal)) < 0.03
    True
    """
    x = _samples("x", x)
    n, d = x.shape
    if target.log_z is None or d > 5:
        raise ConfigError(f"target of {d} coordinates: its log_z must be known, and d at most 5")
    factor = n ** (-1 / (d + 4))
    covariance = torch.cov(x.T).reshape(d, d) * factor**2
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        raise ConfigError(f"x: {n} samples in fewer than {d} dimensions have no kernel density estimate")
    z = torch.linalg.solve_triangular(lower, x.T, upper=False).T
    constant = float(lower.diagonal().log().sum()) + 0.5 * d * math.log(2 * math.pi)
    logs = []
    for part in _blocks(x, x):
        exponent = -0.5 * _distances(z[part], z)
        if leave_one_out:
            torch.diagonal(exponent[:, part]).fill_(-math.inf)
        logs.append(torch.logsumexp(exponent, 1))
    log_q = torch.cat(logs) - math.log(n - leave_one_out) - constant
    return float((log_q - target.log_density(x) + target.log_z).mean())


def mode_weights(x: Tensor, modes: Modes) -> Tensor:
    """Return the share of samples that is nearest to each mode, shape (k,).

    Examples
    --------
    >>> from sciml.sampling.targets import three_modes
    >>> target = three_modes()
    >>> mode_weights(target.sample(1000), target.modes).tolist()
    [0.193, 0.28, 0.527]
    """
    return torch.bincount(modes.nearest(_samples("x", x)), minlength=len(modes.weights)).double() / len(x)


def weight_error(x: Tensor, modes: Modes) -> float:
    """Return the total variation of the modes' weights, sum |share - weight| / 2, from 0 to 1.

    Examples
    --------
    >>> modes = Modes(torch.tensor([[0.0], [5.0]]).double(), torch.tensor([0.5, 0.5]).double())
    >>> weight_error(torch.tensor([[0.1], [0.2]]), modes)
    0.5
    """
    return float((mode_weights(x, modes) - modes.weights.to(x.device)).abs().sum() / 2)


def modes_found(x: Tensor, modes: Modes, share: float = 0.2) -> int:
    """Return how many modes have at least that share of what they should."""
    return int((mode_weights(x, modes) >= share * modes.weights.to(x.device)).sum())


def table(
    x: Tensor, target: Density, reference: Tensor | None = None, seed: int = 1
) -> dict[str, dict[str, float]]:
    """Return all measures that a target allows, of samples and of exact ones of as many.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    target : Density
    reference : Tensor, shape (m, d), optional
        What to compare with; exact samples by default, where there are such.
    seed : int
        Of exact samples.

    Returns
    -------
    dict
        From the measure's name to {"value", "exact"}; the latter nan where the target has no exact samples, both where
        the measure cannot be taken. Sinkhorn's epsilon and the length of KSD's kernel are 1.

    Examples
    --------
    >>> from sciml.sampling.targets import three_modes
    >>> found = table(three_modes().sample(300), three_modes())
    >>> found["modes"]
    {'value': 3.0, 'exact': 3.0}
    """
    exact: Tensor | None = None
    try:
        exact = target.sample(len(x), seed)
        reference = target.sample(max(len(x), 2000), seed + 1) if reference is None else reference
    except ConfigError:
        pass
    measures: dict[str, Callable[[Tensor], float]] = {}
    if reference is not None:
        fixed, scale = reference, median_distance(reference)
        measures["MMD^2"] = lambda x: mmd_squared(x, fixed, scale)
        few = fixed[: min(len(x), MOST_TRANSPORTED)]
        measures["Sinkhorn"] = lambda x: sinkhorn_divergence(x[: len(few)], few, 1.0)
    measures["KSD^2"] = lambda x: ksd_squared(x, target.score)
    if target.log_z is not None and target.d <= 5:
        measures["KL by KDE"] = lambda x: kde_divergence(x, target)
        measures["KL by KDE, one out"] = lambda x: kde_divergence(x, target, leave_one_out=True)
    if target.modes is not None and len(target.modes.weights) <= 100:
        modes = target.modes
        measures["modes"] = lambda x: float(modes_found(x, modes))
        measures["weight error"] = lambda x: weight_error(x, modes)
    for moment in target.moments:
        measures[moment.name] = lambda x, of=moment.of: float(of(x.double()).mean())  # type: ignore[misc]
    return {
        name: {"value": _or_nan(of, x), "exact": math.nan if exact is None else _or_nan(of, exact)}
        for name, of in measures.items()
    }


def _or_nan(measure: Callable[[Tensor], float], x: Tensor) -> float:
    """Return nan where a measure cannot be taken, as of samples that are all the same."""
    try:
        return measure(x)
    except (ConfigError, ConvergenceError):
        return math.nan
