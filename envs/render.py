"""Pictures, films and files of states."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sciml.errors import ConfigError
from sciml.files import atomic_path

from .marching import march
from .policies import Policy, deploy
from .states import State
from .trees import TransportState, TreeState
from .triangles import TriangleState

__all__ = ["episode", "frame", "write_film", "write_states"]


def frame(state: State, budget: int) -> np.ndarray:
    """Return solution and mesh as an RGB array, shape (height, width, 3), uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it would keep every figure.
    figure = Figure(figsize=(5, 4), dpi=80, layout="constrained")
    canvas, ax = FigureCanvasAgg(figure), figure.subplots()
    state.plot(ax)
    passed = f", t = {state.time + state.step:.3g}" if isinstance(state, TransportState) else ""
    ax.set_title(f"{len(state)} of {budget} cells{passed}")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def episode(policy: Policy, state: State, budget: int, *, steps: int = 40, seed: int = 0) -> list[State]:
    """Return the states that a policy goes through until it is content, or in time those at the ends of steps."""
    states: list[State] = []
    if isinstance(state, TransportState):
        march(policy, state, budget, steps, seed=seed, visit=states.append)
        return states
    deploy(policy, state, budget, cycles=steps, seed=seed, visit=states.append)
    return [state, *states]


def write_film(path: str | Path, states: Sequence[State], budget: int, seconds: float = 0.4) -> None:
    """Write states as an animated GIF.

    Raises
    ------
    ConfigError
        If the file is no .gif, or there are no states.
    """
    from PIL import Image

    path = Path(path)
    if path.suffix != ".gif" or not states:
        raise ConfigError(f"output {path.name!r} of {len(states)} states: name a .gif file, give states")
    pictures = [Image.fromarray(frame(state, budget)) for state in states]
    # The last one stays longer.
    times = [int(1000 * seconds)] * (len(pictures) - 1) + [int(4000 * seconds)]
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0
        )


def write_states(folder: str | Path, states: Sequence[State]) -> list[Path]:
    """Write meshes and solutions as ``mesh-0000.vtu`` and so on, with ``meshes.pvd``, their sequence for viewers."""
    from sciml.solvers.dg.exchange import write_tree
    from sciml.solvers.fem import write_mesh

    folder, files, times = Path(folder), [], []
    for number, state in enumerate(states):
        files.append(folder / f"mesh-{number:04d}.vtu")
        times.append(state.time + state.step if isinstance(state, TransportState) else number)
        cells = {"level": state.levels.astype(float), "nonconformity": state.nonconformity}
        if isinstance(state, TreeState):
            write_tree(files[-1], state.u, cells)
        else:
            assert isinstance(state, TriangleState)
            write_mesh(files[-1], state.mesh, {"u": state.u.values}, cells)
    entries = "".join(
        f'<DataSet timestep="{time:.12g}" file="{file.name}"/>'
        for time, file in zip(times, files, strict=True)
    )
    with atomic_path(folder / "meshes.pvd") as temporary:
        temporary.write_text(f'<VTKFile type="Collection"><Collection>{entries}</Collection></VTKFile>\n')
    return files
