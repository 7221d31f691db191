"""What ``/provenance`` of a dataset of any kind holds: where it came from, and why to believe it.

datasets
    ``seed`` int64 (B); ``config`` (JSON text); ``checks/<name>`` float64 (B) with attribute ``limit``;
    ``checksum`` S64 (B), SHA-256 of each trajectory as stored; ``rejected`` int64 (R), seeds of
    trajectories that blew up or failed a check and were replaced, with ``rejected_index`` int64 (R), which
    trajectory each was to be, and ``rejected_reason`` text (R); ``verification/index`` int64 (V),
    trajectories that were solved again at twice the resolution with half the step, and
    ``verification/<measure>`` float64 (V) with attribute ``limit``.
attributes
    ``equation``, ``created_utc``, ``command``, ``git_commit``, ``versions`` (JSON), ``machine``,
    ``processor``, ``system``, ``device``, ``cpu_seconds``, ``header_checksum``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from sciml.provenance import collect

from .rows import header_checksum

__all__ = ["Record"]


def _none() -> np.ndarray:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Record:
    """The content of ``/provenance``, less what describes the machine.

    Parameters
    ----------
    config : dict
        Everything that decides the data, ready for JSON.
    seeds : ndarray of int64, shape (B,)
    checks : dict of str to ndarray, shape (B,)
    limits : dict of str to float
        Of the checks.
    equation : str
    cpu_seconds : float
    checksums : ndarray of S64, shape (B,)
    rejected : ndarray of int64, shape (R,)
        Seeds.
    rejected_index : ndarray of int64, shape (R,)
        Trajectories that they were to be; -1 where that is not known, as of files of an older version.
    rejected_reason : tuple of str, length R
        Empty texts where they are not known.
    verified : ndarray of int64, shape (V,)
        Trajectories.
    verification : dict of str to ndarray, shape (V,)
    verification_limits : dict of str to float
    device : str
    """

    config: dict[str, Any]
    seeds: np.ndarray
    checks: dict[str, np.ndarray] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    equation: str = ""
    cpu_seconds: float = 0.0
    checksums: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype="S64"))
    rejected: np.ndarray = field(default_factory=_none)
    verified: np.ndarray = field(default_factory=_none)
    verification: dict[str, np.ndarray] = field(default_factory=dict)
    verification_limits: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"
    rejected_index: np.ndarray = field(default_factory=_none)
    rejected_reason: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.rejected_index) and not self.rejected_reason:
            object.__setattr__(self, "rejected_index", np.full(len(self.rejected), -1))
            object.__setattr__(self, "rejected_reason", ("",) * len(self.rejected))

    def write(self, file: h5py.File, made: dict[str, Any] | None = None) -> None:
        """Write ``/provenance`` into a file whose other content is complete.

        ``made`` holds the attributes that say where and how the numbers were made, by default here and
        now; a copy keeps those of its source.
        """
        group = file.create_group("provenance")
        group.create_dataset("seed", data=np.asarray(self.seeds, dtype=np.int64))
        # A long configuration does not fit into an attribute (64 KiB).
        group.create_dataset(
            "config", data=json.dumps(self.config, sort_keys=True), dtype=h5py.string_dtype()
        )
        group.create_dataset("checksum", data=self.checksums)
        group.create_dataset("rejected", data=np.asarray(self.rejected, dtype=np.int64))
        group.create_dataset("rejected_index", data=np.asarray(self.rejected_index, dtype=np.int64))
        # HDF5 has no null characters in texts.
        reasons = np.array([reason.replace("\0", " ") for reason in self.rejected_reason], dtype=object)
        group.create_dataset("rejected_reason", data=reasons, dtype=h5py.string_dtype())
        group.create_dataset("verification/index", data=np.asarray(self.verified, dtype=np.int64))
        for folder, measures, limits in (
            ("checks", self.checks, self.limits),
            ("verification", self.verification, self.verification_limits),
        ):
            for name, values in measures.items():
                dataset = group.create_dataset(f"{folder}/{name}", data=np.asarray(values, dtype=np.float64))
                if name in limits:
                    dataset.attrs["limit"] = limits[name]
        if made is None:
            made = collect()
            made["versions"] = json.dumps(made["versions"])
        own = {"equation": self.equation, "cpu_seconds": self.cpu_seconds, "device": self.device}
        for name, value in {**made, **own}.items():
            group.attrs[name] = value
        group.attrs["header_checksum"] = header_checksum(file)

    @classmethod
    def read(cls, file: h5py.File) -> "Record":
        """Read ``/provenance``; what an older format version lacks is empty."""
        group = file["provenance"]

        def measures(folder: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
            entries = {name: entry for name, entry in group.get(folder, {}).items() if name != "index"}
            limits = {name: float(e.attrs["limit"]) for name, e in entries.items() if "limit" in e.attrs}
            return {name: entry[()] for name, entry in entries.items()}, limits

        def array(name: str, empty: np.ndarray) -> np.ndarray:
            return group[name][()] if name in group else empty

        checks, limits = measures("checks")
        verification, verification_limits = measures("verification")
        return cls(
            json.loads(group["config"].asstr()[()]),
            group["seed"][()],
            checks,
            limits,
            str(group.attrs.get("equation", "")),
            float(group.attrs.get("cpu_seconds", 0.0)),
            array("checksum", np.zeros(0, dtype="S64")),
            array("rejected", _none()),
            array("verification/index", _none()),
            verification,
            verification_limits,
            str(group.attrs.get("device", "cpu")),
            array("rejected_index", _none()),
            tuple(group["rejected_reason"].asstr()[()]) if "rejected_reason" in group else (),
        )

    @staticmethod
    def join(records: Sequence["Record"], config: dict[str, Any]) -> "Record":
        """Return the record of files laid end to end; what they share is taken from the first."""
        first = records[0]
        starts = np.cumsum([0, *(len(record.seeds) for record in records)])

        def joined(name: str) -> dict[str, np.ndarray]:
            # Some shards hold no verified trajectory, hence no measures.
            names = {key: None for record in records for key in getattr(record, name)}
            parts = [getattr(record, name) for record in records]
            return {key: np.concatenate([part[key] for part in parts if key in part]) for key in names}

        return Record(
            config,
            np.concatenate([record.seeds for record in records]),
            joined("checks"),
            first.limits,
            first.equation,
            sum(record.cpu_seconds for record in records),
            np.concatenate([record.checksums for record in records]),
            np.concatenate([record.rejected for record in records]),
            np.concatenate([r.verified + start for r, start in zip(records, starts, strict=False)]),
            joined("verification"),
            {name: limit for record in records for name, limit in record.verification_limits.items()},
            first.device,
            np.concatenate(
                [
                    np.where(r.rejected_index < 0, -1, r.rejected_index + start)
                    for r, start in zip(records, starts, strict=False)
                ]
            ),
            tuple(reason for record in records for reason in record.rejected_reason),
        )

    def select(self, start: int, stop: int) -> "Record":
        """Return the record of trajectories start <= i < stop.

        Rejected seeds of which is not known what they were to be belong to every selection.
        """
        index = self.rejected_index
        ours = (index < 0) | ((index >= start) & (index < stop))
        inside = (self.verified >= start) & (self.verified < stop)
        return Record(
            self.config,
            self.seeds[start:stop],
            {name: values[start:stop] for name, values in self.checks.items()},
            self.limits,
            self.equation,
            self.cpu_seconds * (stop - start) / max(1, len(self.seeds)),
            self.checksums[start:stop],
            self.rejected[ours],
            self.verified[inside] - start,
            {name: values[inside] for name, values in self.verification.items()},
            self.verification_limits,
            self.device,
            np.where(index < 0, -1, index - start)[ours],
            tuple(reason for reason, own in zip(self.rejected_reason, ours, strict=True) if own),
        )

    def failures(self) -> list[str]:
        """Return the names of the checks and measures that exceed their limits somewhere."""
        return [
            name
            for measures, limits in (
                (self.checks, self.limits),
                (self.verification, self.verification_limits),
            )
            for name, values in measures.items()
            if name in limits and not (values <= limits[name]).all()
        ]
