"""The folder of a run: started once, gone on with, or replaced."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigError, OutputExistsError
from .files import read_json, write_json
from .provenance import collect, first_difference

__all__ = ["open_run"]


def open_run(
    output: Path,
    resolved: dict[str, Any],
    *,
    finished: str,
    stale: Sequence[str],
    packages: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Start a run folder with its ``config.json``, or make sure that it is one of the same settings.

    Parameters
    ----------
    output : Path
    resolved : dict
        All settings, JSON-ready.
    finished : str
        The file that a finished run has.
    stale : sequence of str
        Patterns of the files that runs and their evaluations leave: a run that starts again removes them, first those
        from which another one could go on.
    packages : sequence of str
        Whose versions are recorded besides those that always are.
    resume, overwrite : bool
        Whether a run that is there is gone on with, or discarded.

    Raises
    ------
    OutputExistsError
        If it is taken.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: choose one")
    config_file = output / "config.json"
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"output {str(output)!r} is a file: name a folder")
    taken = output.exists() and any(output.iterdir())
    if taken and not config_file.exists():
        raise OutputExistsError(f"output {str(output)!r} holds other files than a run: choose another folder")
    if taken and not (resume or overwrite):
        state = "a finished run" if (output / finished).exists() else "an unfinished run"
        raise OutputExistsError(
            f"output {str(output)!r} holds {state}: pass --resume to go on, --overwrite to start again, "
            "or choose another path"
        )
    if taken and resume:
        found = read_json(config_file)
        if not isinstance(found, dict) or not set(resolved) <= set(found):
            raise OutputExistsError(
                f"{str(config_file)!r} lacks the settings of a run: pass --overwrite to start again, or choose "
                "another path"
            )
        recorded = {key: value for key, value in found.items() if key != "provenance"}
        if recorded != resolved:
            raise OutputExistsError(
                f"output {str(output)!r} holds a run of other settings ({first_difference(recorded, resolved)}): "
                "resume it with its own, or choose another path"
            )
        return
    for pattern in stale:
        for file in output.glob(pattern):
            file.unlink()
    write_json(config_file, {**resolved, "provenance": collect(packages)})
