"""The public data of Geo-FNO, NumPy and MATLAB arrays in layouts of their own, as datasets.

=============  ===============================================================  =====================================
kind           files of a folder (shapes, N samples)                            becomes
=============  ===============================================================  =====================================
elasticity     ``Random_UnitCell_XY_10.npy`` (P, 2, N), ``..._sigma_10.npy``    kind ``points``: stress at P points;
               (P, N) and, if there, ``..._rr_10.npy`` (42, N)                  42 radii as scalars
airfoil        ``NACA_Cylinder_X.npy``, ``..._Y.npy`` (N, I, J), ``..._Q.npy``  kind ``fields`` over the indices: x, y
               (N, 5, I, J)                                                     to mach, the last of Q
pipe           ``Pipe_X.npy``, ``Pipe_Y.npy`` (N, I, J), ``Pipe_Q.npy``         kind ``fields`` over the indices: x, y
               (N, C, I, J)                                                     to u, the first of Q
plasticity     ``plas_N987_T20.mat``: ``input`` (N, I), ``output``              kind ``fields`` over the indices: the
               (N, I, J, T, 4)                                                  die's profile and rest to T frames
=============  ===============================================================  =====================================

Li, Huang, Liu and Anandkumar, JMLR 24, 2023, whose readme links to them. On structured meshes an `FNO` over the indices
with the positions as inputs is their model.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.files import refuse_existing
from sciml.solvers.grid import CartesianGrid

from .imported import write_imported
from .recipe import FieldsLayout, FieldSpec, Layout, PointsLayout, Trajectory

__all__ = ["import_geofno", "kind_of_arrays"]

FILES = {
    "elasticity": ("Random_UnitCell_XY_10.npy", "Random_UnitCell_sigma_10.npy"),
    "airfoil": ("NACA_Cylinder_X.npy", "NACA_Cylinder_Y.npy", "NACA_Cylinder_Q.npy"),
    "pipe": ("Pipe_X.npy", "Pipe_Y.npy", "Pipe_Q.npy"),
    "plasticity": ("plas_N987_T20.mat",),
}
RADII = "Random_UnitCell_rr_10.npy"


def kind_of_arrays(folder: str | Path) -> str | None:
    """Return which of these data a folder holds, None if none."""
    return next(
        (kind for kind, names in FILES.items() if all((Path(folder) / n).is_file() for n in names)), None
    )


def import_geofno(folder: str | Path, output: str | Path, *, overwrite: bool = False) -> Path:
    """Write the public data of Geo-FNO in a folder as a dataset.

    Parameters
    ----------
    folder : path
        With files of the names above.
    output : path
        HDF5 file; it appears whole or not at all.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If there are no such files in the folder.
    DatasetFormatError
        If they are damaged, or of other shapes.
    OutputExistsError
        If ``output`` exists and ``overwrite`` is not given.

    Examples
    --------
    >>> import_geofno("data/elasticity", "elasticity-public.h5")  # doctest: +SKIP
    PosixPath('elasticity-public.h5')
    """
    folder = Path(folder)
    kind = kind_of_arrays(folder)
    if kind is None:
        wanted = "; ".join(", ".join(names) for names in FILES.values())
        raise ConfigError(
            f"folder {str(folder)!r} holds none of the public data of Geo-FNO: it needs {wanted}"
        )
    if not overwrite:
        refuse_existing(output)
    layout, samples, n = {"elasticity": _elasticity, "plasticity": _plasticity}.get(kind, _structured)(
        folder, kind
    )
    sources = [folder / name for name in FILES[kind]]
    note = f"{kind}, public data of Geo-FNO (arXiv 2207.05209)"
    return write_imported(output, layout, samples, n, sources, note)


def _load(path: Path, axes: int) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetFormatError(f"{str(path)!r} cannot be read ({error}): download it again") from error
    if values.ndim != axes or values.dtype.kind != "f":
        raise DatasetFormatError(
            f"{str(path)!r} holds {values.dtype} of shape {values.shape}: {axes} axes of real numbers are expected"
        )
    return values


def _agree(condition: bool, folder: Path, *arrays: np.ndarray) -> None:
    if not condition:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise DatasetFormatError(
            f"the arrays in {str(folder)!r} have shapes {shapes}, which do not fit together"
        )


def _elasticity(folder: Path, kind: str) -> tuple[Layout, Iterator[Trajectory], int]:
    xy, stress = (_load(folder / name, axes) for name, axes in zip(FILES[kind], (3, 2), strict=True))
    _agree(xy.shape[1] == 2 and (xy.shape[0], xy.shape[2]) == stress.shape, folder, xy, stress)
    radii = _load(folder / RADII, 2) if (folder / RADII).is_file() else np.zeros((0, stress.shape[1]))
    _agree(radii.shape[1] == stress.shape[1], folder, radii, stress)
    names = tuple(f"radius_{i:02d}" for i in range(len(radii)))
    layout = PointsLayout(
        name="elasticity-public",
        dim=2,
        fields=(FieldSpec("stress", "stress, units of the paper"),),
        size=len(stress),
        scalars=names,
        targets=("stress",),
        code=names,
    )
    samples = (
        Trajectory(
            {"positions": xy[:, :, row].astype(float), "stress": stress[:, row]},
            dict(zip(names, radii[:, row].astype(float).tolist(), strict=True)),
        )
        for row in range(stress.shape[1])
    )
    return layout, samples, stress.shape[1]


def _structured(folder: Path, kind: str) -> tuple[Layout, Iterator[Trajectory], int]:
    x, y, q = (_load(folder / name, axes) for name, axes in zip(FILES[kind], (3, 3, 4), strict=True))
    _agree(x.shape == y.shape == (q.shape[0], *q.shape[2:]) and q.shape[1] > 0, folder, x, y, q)
    channel = 4 if kind == "airfoil" else 0
    _agree(q.shape[1] > channel, folder, q)
    target = "mach" if kind == "airfoil" else "u"
    description = "Mach number" if kind == "airfoil" else "velocity along x"
    layout = FieldsLayout(
        name=f"{kind}-public",
        grid=_indices(x.shape[1:]),
        fields=(
            FieldSpec("x", "position, units of the paper", time_varying=False),
            FieldSpec("y", "position, units of the paper", time_varying=False),
            FieldSpec(target, f"{description}, units of the paper"),
        ),
        inputs=("x", "y"),
        targets=(target,),
    )
    samples = (Trajectory({"x": x[row], "y": y[row], target: q[row, channel]}) for row in range(len(x)))
    return layout, samples, len(x)


def _plasticity(folder: Path, kind: str) -> tuple[Layout, Iterator[Trajectory], int]:
    from scipy.io import loadmat

    path = folder / FILES[kind][0]
    try:
        arrays: dict[str, Any] = loadmat(path, variable_names=["input", "output"])
        die, output = np.asarray(arrays["input"], dtype=float), np.asarray(arrays["output"])
    # Readers of damaged files fail in many ways.
    except Exception as error:
        raise DatasetFormatError(f"{str(path)!r} cannot be read ({error}): download it again") from error
    _agree(output.ndim == 5 and output.shape[-1] == 4 and die.shape == output.shape[:2], folder, die, output)
    # Before the first frame stands what it was displaced from, so that all of them can be predicted.
    frames, names = output.shape[3] + 1, ("x", "y", "u", "v")
    described = ("deformed x", "deformed y", "displacement along x", "displacement along y")
    layout = FieldsLayout(
        name="plasticity-public",
        grid=_indices(output.shape[1:3]),
        fields=(
            FieldSpec("die", "profile of the die, units of the paper", time_varying=False),
            *(
                FieldSpec(name, f"{text}, units of the paper")
                for name, text in zip(names, described, strict=True)
            ),
        ),
        times=tuple(np.arange(float(frames)).tolist()),
        steady=False,
        inputs=("die",),
        targets=names,
    )
    samples = (
        Trajectory(
            {
                "die": np.repeat(die[row][:, None], output.shape[2], axis=1),
                **dict(zip(names, np.moveaxis(_from_rest(output[row]), (-1, -2), (0, 1)), strict=True)),
            }
        )
        for row in range(len(output))
    )
    return layout, samples, len(output)


def _from_rest(output: np.ndarray) -> np.ndarray:
    """Frames (I, J, T, 4) of positions and displacements, after that of rest."""
    rest = np.zeros_like(output[:, :, :1])
    rest[..., :2] = output[:, :, :1, :2] - output[:, :, :1, 2:]
    return np.concatenate([rest, output], axis=2)


def _indices(shape: tuple[int, ...]) -> CartesianGrid:
    """The unit square with so many nodes."""
    return CartesianGrid((0.0,) * len(shape), (1.0,) * len(shape), tuple(n - 1 for n in shape))
