"""Pictures of states, for `render`, films and reports."""

import numpy as np

from .states import State

__all__ = ["frame"]


def frame(state: State, budget: int) -> np.ndarray:
    """Return solution and mesh as an RGB array, shape (height, width, 3), uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it would keep every figure.
    figure = Figure(figsize=(5, 4), dpi=80, layout="constrained")
    canvas, ax = FigureCanvasAgg(figure), figure.subplots()
    state.plot(ax)
    ax.set_title(f"{len(state)} of {budget} cells")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
