"""The command line: ``sciml COMMAND ...``.

Each command is a module of this package with a typed dataclass and a ``run`` function; it imports
what it needs when it is called.
"""

import contextlib
import importlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator

from sciml.errors import ConfigError, SciMLError
from sciml.registry import load_entry_points, load_plugin, unknown_name

__all__ = ["main"]

COMMANDS = {
    "solve": "solve a PDE on a curved domain: error table, picture, VTK, HDF5",
    "generate": "generate a benchmark dataset (resumes when run again)",
    "inspect": "show what a dataset holds and whether its checks pass",
    "convert": "convert a dataset to or from the layouts of PDEBench and The Well, or to meshes",
    "plot": "draw a dataset: frames, space-time image, spectrum, animation",
    "train": "train an operator, a score model or a vector field on a dataset",
    "evaluate": "evaluate a trained operator: metrics, resolutions, spectra, roll-outs, cost",
    "compare": "compare training runs over models, settings and seeds",
    "predict": "apply a trained operator to a dataset, HDF5 to HDF5",
    "sample": "draw fields from a trained score model, or samples of a known density",
    "bench": "compare samplers of densities under equal conditions",
    "export": "write a trained operator as an ONNX program",
    "equation": "print the equation that a vector field learned, with uncertainties",
    "refine": "train agents that refine meshes, and compare them with classical strategies",
    "demo": "all of it, small, with a report to look at",
}

USAGE = """usage: sciml COMMAND [NAME] [options]

{commands}

  sciml COMMAND --help shows a command's options and an example.
  --plugin FILE.py, with any command, first runs a file that registers your own recipes, problems,
  domains or families of refinement problems.

example:
  sciml solve poisson --domain star --n 256 --order 4
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit code. What a user can mend is reported in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Before torch is loaded, whose OpenMP threads else spin for each other so long that beside another busy process
    # training takes ten times as long; alone it takes as long as with this.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        with _terminable():
            _dispatch(arguments)
        # What is still buffered would fail when Python ends, beyond this handler.
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left, as head does; Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SciMLError as error:
        return _fail(str(error), 1)
    except MemoryError as error:
        return _fail(f"out of memory ({error}): use a smaller grid, fewer modes or a narrower model", 1)
    except RuntimeError as error:
        # As torch says it, on processors and on GPUs.
        if not any(text in str(error) for text in ("out of memory", "not enough memory")):
            raise
        return _fail("out of memory: use a smaller grid or batch, fewer modes or a narrower model", 1)
    except OSError as error:
        name = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or str(error) or type(error).__name__}{name}", 1)
    except _Terminated:
        return _fail(f"terminated: {_after(arguments)}", 143)
    except KeyboardInterrupt:
        return _fail(f"interrupted: {_after(arguments)}", 130)
    return 0


class _Terminated(BaseException):
    """What schedulers ask for with SIGTERM."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end this process, but none that it starts, as an interruption does."""
    process = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() == process:
            raise _Terminated
        os._exit(128 + number)

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _after(arguments: list[str]) -> str:
    """What to do after an interruption."""
    words = [*itertools.dropwhile(lambda argument: argument not in COMMANDS, arguments)]
    command = " ".join(words[: 2 if words[:1] == ["refine"] else 1])
    if command in ("train", "refine train"):
        replacing = ", in place of --overwrite" if "--overwrite" in arguments else ""
        return f"go on with the same command and --resume{replacing}"
    goes_on = command in ("generate", "demo", "refine evaluate")
    return "run the same command again" + (", it goes on" if goes_on else "")


def _fail(message: str, code: int) -> int:
    print("sciml: error:", " ".join(message.split()), file=sys.stderr)
    return code


def _dispatch(arguments: list[str]) -> None:
    arguments, plugins = _take_plugins(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:10s} {text}" for name, text in COMMANDS.items())
        print(USAGE.format(commands=lines), end="")
        return
    if arguments[0] == "--version":
        from sciml import __version__

        print(f"sciml {__version__}")
        return
    command, *rest = arguments
    if command not in COMMANDS:
        raise unknown_name("command", command, list(COMMANDS))
    load_entry_points()
    for plugin in plugins:
        load_plugin(plugin)
    importlib.import_module(f"sciml.cli.{command}").run(rest, plugins)


def _take_plugins(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate every ``--plugin FILE`` from the other arguments."""
    rest, plugins = [], []
    queue = iter(arguments)
    for argument in queue:
        if argument == "--plugin":
            value = next(queue, None)
            if value is None:
                raise ConfigError("--plugin needs a Python file")
            plugins.append(value)
        elif argument.startswith("--plugin="):
            plugins.append(argument.removeprefix("--plugin="))
        else:
            rest.append(argument)
    return rest, plugins
