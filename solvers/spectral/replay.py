"""Steps on a GPU, recorded once and replayed: to launch their small kernels takes longer than to run them."""

from collections.abc import Callable
from typing import Any

__all__ = ["Replay"]

Array = Any  # torch tensor


class Replay:
    """A step that depends on the state only, as a CUDA graph of PyTorch.

    The first call runs the step as it is, so that what it makes once (plans of Fourier transforms, tables)
    is there; the second records it, and it is replayed from then on, with the same bits.

    Examples
    --------
    >>> import torch
    >>> replay, u = Replay(), torch.ones(3, device="cuda")  # doctest: +SKIP
    >>> for _ in range(4):  # doctest: +SKIP
    ...     u = replay(lambda u: u / 2, u)
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._graph: Any = None

    def __call__(self, step: Callable[[Array], Array], state: Array) -> Array:
        """Return the next state, a new tensor.

        Parameters
        ----------
        step : callable
            From a CUDA tensor to a new one like it; the same step each time.
        state : tensor
        """
        if self._shape != tuple(state.shape):
            self._shape, self._graph = tuple(state.shape), None
            return step(state)
        from torch import cuda

        # What is recorded is the work of the current device.
        with cuda.device(state.device):
            if self._graph is None:
                graph, self._input = cuda.CUDAGraph(), state.clone()
                # Other threads may use the device meanwhile.
                with cuda.graph(graph, capture_error_mode="thread_local"):
                    self._output = step(self._input)
                self._graph = graph
            self._input.copy_(state)
            self._graph.replay()
            return self._output.clone()
