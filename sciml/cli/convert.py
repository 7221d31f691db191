"""``sciml convert``: datasets in the layouts of other benchmarks, and back."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from sciml.errors import ConfigError

from .parsing import parse

__all__ = ["run"]

EXAMPLES = {
    "pdebench": "sciml convert darcy.h5 --to pdebench -o 2D_DarcyFlow.hdf5",
    "well": "sciml convert darcy.h5 --to well -o darcy",
    "sciml": "sciml convert 2D_DarcyFlow.hdf5 --to sciml -o darcy.h5",
    "vtu": "sciml convert elasticity.h5 --to vtu -o cells",
}
EXAMPLE = EXAMPLES["pdebench"]


@dataclass(frozen=True)
class ConvertArguments:
    """What to convert."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """Dataset: of sciml or, with --to sciml, one HDF5 file of PDEBench or The Well, a folder of meshes, one a sample
    (.vtu, .msh, ...), or a folder with the public arrays of Geo-FNO (elasticity, airfoil, pipe or plasticity)."""
    to: Literal["pdebench", "well", "sciml", "vtu"]
    """Layout to write; vtu: a mesh for each sample of functions at points."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """File to write (PDEBench: .hdf5 or .h5, by layout); for the Well and vtu a folder."""
    periodic: str = ""
    """For files of PDEBench that do not say: all, none, or the periodic axes, such as x or xy."""
    targets: tuple[str, ...] = ()
    """Of meshes: the point data that are to be predicted."""
    inputs: tuple[str, ...] = ()
    """Of meshes: point data that are given, beside positions."""
    code: tuple[str, ...] = ()
    """Of meshes: point data of one value a mesh, which describe it."""
    overwrite: bool = False
    """Replace an existing output."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Convert a dataset to or from the layouts of PDEBench and The Well or meshes, or from Geo-FNO's arrays."""
    description = (
        "Convert a dataset to or from the layouts of PDEBench and The Well or meshes, or from Geo-FNO's."
    )
    options = parse(ConvertArguments, "sciml convert", arguments, description, EXAMPLE)
    if not options.output:
        raise ConfigError(f"output is missing: name it with -o, as in '{EXAMPLES[options.to]}'")
    if options.periodic and options.to != "sciml":
        raise ConfigError(
            f"periodic={options.periodic!r} with --to {options.to}: leave it out, the dataset says it"
        )
    if options.to != "sciml" and (options.targets or options.inputs or options.code):
        raise ConfigError(
            f"targets, inputs or code with --to {options.to}: leave them out, the dataset says it"
        )
    if options.to == "pdebench":
        from sciml.datasets.pdebench import export_pdebench

        export_pdebench(options.file, options.output, options.overwrite)
    elif options.to == "well":
        from sciml.datasets.well import export_well

        export_well(options.file, options.output, options.overwrite)
    elif options.to == "vtu":
        from sciml.datasets import PointsDataset
        from sciml.datasets.meshes import write_samples

        with PointsDataset(options.file) as data:
            write_samples(data, options.output, options.overwrite)
    else:
        _import(options)
        _warn(options.output)
    hint = f"; look at it with: sciml inspect {options.output}" if options.to == "sciml" else ""
    print(f"wrote {Path(options.output)}{hint}")


def _warn(path: str) -> None:
    """Say if what was imported has values that training would refuse."""
    from sciml.datasets import open_dataset

    with open_dataset(path) as data:
        checks = data.record.checks if data.record else {}
        rows = np.flatnonzero(checks.get("not_finite", ()))
    if len(rows):
        print(
            f"sciml: warning: {len(rows)} trajectories, the first of them {rows[0]}, have values that are not finite",
            file=sys.stderr,
        )


def _import(options: ConvertArguments) -> None:
    from sciml.datasets.geofno_arrays import import_geofno, kind_of_arrays
    from sciml.datasets.mesh_import import import_meshes, mesh_files
    from sciml.datasets.pdebench import import_pdebench
    from sciml.datasets.reader import open_hdf5
    from sciml.datasets.well import import_well

    roles = {"targets": options.targets, "inputs": options.inputs, "code": options.code}
    meshes = mesh_files(options.file)
    named = [f"{name}={value}" for name, value in roles.items() if value]
    if named and not meshes:
        raise ConfigError(f"{', '.join(named)}: {options.file!r} is no folder of meshes, leave it out")
    if meshes:
        if options.periodic or not options.targets:
            raise ConfigError(
                f"{options.file!r} is a folder of {len(meshes)} meshes: name the point data to predict, --targets "
                "NAME, and no --periodic"
            )
        import_meshes(options.file, options.output, **roles, overwrite=options.overwrite)
        return
    if Path(options.file).is_dir() and not kind_of_arrays(options.file):
        raise ConfigError(
            f"folder {options.file!r} holds neither meshes (.vtu, .msh, ...) nor the public arrays of Geo-FNO "
            "(Random_UnitCell_XY_10.npy, NACA_Cylinder_X.npy, Pipe_X.npy or plas_N987_T20.mat with those beside it)"
        )
    if kind_of_arrays(options.file):
        if options.periodic:
            raise ConfigError(f"periodic={options.periodic!r}: none of these data is, leave it out")
        import_geofno(options.file, options.output, overwrite=options.overwrite)
        return
    with open_hdf5(options.file) as file:
        if file.attrs.get("format") == "sciml":
            raise ConfigError(f"{options.file!r} was made by sciml: it needs no import")
        if "t0_fields" in file:
            if options.periodic:
                raise ConfigError(f"periodic={options.periodic!r}: files of The Well say it, leave it out")
            file.close()
            import_well(options.file, options.output, options.overwrite)
            return
        dim = sum(f"{axis}-coordinate" in file for axis in "xyz")
        first = next((item for item in file.values() if "data" in getattr(item, "keys", list)()), None)
        if first is not None and "grid" in first:
            dim = sum(axis in first["grid"] for axis in "xyz")
    known = {"all": "xyz"[:dim], "none": ""}.get(options.periodic, options.periodic)
    if not set(known) <= set("xyz"[:dim]):
        raise ConfigError(
            f"periodic={options.periodic!r}: give all, none, or axes among {', '.join('xyz'[:dim])}"
        )
    import_pdebench(
        options.file,
        options.output,
        periodic=[axis in known for axis in "xyz"[:dim]] if options.periodic else None,
        overwrite=options.overwrite,
    )
