"""Folders that are replaced as a whole: whatever a kill leaves, it is the old one or the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sciml.errors import OutputExistsError, StorageError
from sciml.files import append_lines, atomic_folder, exchanged_folder, locked, refuse_folder, refuse_input

KILLED_EVERYWHERE = """
import os, shutil
from pathlib import Path
from sciml.files import exchanged_folder

path, kills, point = Path("out"), 0, 0
def write(text):
    with exchanged_folder(path) as new:
        (new / "data").mkdir()
        for name in ("a", "data/b"):
            (new / name).write_text(text)

def content(folder):
    return {name: (folder / name).read_text() for name in ("a", "data/b")}

while True:
    point += 1
    shutil.rmtree(path, ignore_errors=True)
    write("old")
    if (pid := os.fork()) == 0:
        left = [point]
        def counted(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return function(*arguments, **options)
            return call
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
            setattr(os, name, counted(getattr(os, name)))
        write("new")
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found = content(path if path.exists() else Path(".out.exchange/old"))
    assert found in ({"a": text, "data/b": text} for text in ("old", "new")), (point, found)
    write("again")
    assert content(path) == {"a": "again", "data/b": "again"}
    assert os.listdir() == ["out"], (point, os.listdir())
    if code == 0:
        break
print(point)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 8


def test_a_folder_survives_a_failure_and_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds other things"):
        refuse_folder(path, "run.json", overwrite=True)
    with pytest.raises(StorageError), exchanged_folder(path) as new:
        (new / "none").unlink()
    with (
        locked(path),
        pytest.raises(OutputExistsError, match=r"another process is writing to '.*out'"),
        locked(path),
    ):
        raise AssertionError("not reached")
    assert os.listdir(tmp_path) == ["out"]


def test_through_a_link_the_folder_is_exchanged(tmp_path: Path) -> None:
    (tmp_path / "disk/out").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/out")
    with exchanged_folder(tmp_path / "link") as new:
        (new / "a").write_text("a")
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["out"]
    assert os.listdir(tmp_path / "disk/out") == ["a"]


def test_an_input_is_refused_as_output_by_any_name(tmp_path: Path) -> None:
    file = tmp_path / "folder/data/a.h5"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (tmp_path / "soft").symlink_to(file)
    (tmp_path / "hard").hardlink_to(file)
    refuse_input(file, tmp_path / "other.h5")
    for target in (file, tmp_path / "soft", tmp_path / "hard"):
        with pytest.raises(OutputExistsError, match="is the input"):
            refuse_input(file, target)
        with pytest.raises(OutputExistsError, match="is the input"):
            refuse_input(target, file)
    with pytest.raises(OutputExistsError, match="holds the input"):
        refuse_input(tmp_path / "soft", tmp_path / "folder")


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a link to one"])
def test_a_folder_appears_as_a_whole(there: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    if there != "nothing":
        (tmp_path / "disk").mkdir()
        path.symlink_to("disk") if "link" in there else path.mkdir()
    with atomic_folder(path, "run.json") as new:
        for name in ("a", "run.json"):
            (new / name).write_text(name)
        # Nothing to be seen of it yet.
        assert not path.exists() or not any(path.iterdir())
    assert sorted(os.listdir(path)) == ["a", "run.json"]
    assert path.is_symlink() == ("link" in there)
    assert not [entry for entry in os.listdir(tmp_path) if entry.endswith(".tmp")]


def test_the_marker_of_a_folder_is_replaced_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.mkdir()
    for name in ("mine.txt", "run.json", "z"):
        (path / name).write_text("old")
    replaced, replace = [], os.replace

    def killed(source: Path, target: Path) -> None:
        if len(replaced) == 2:
            raise KeyboardInterrupt
        replaced.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)

    def write() -> None:
        with atomic_folder(path, "run.json", overwrite=True) as new:
            for name in ("run.json", "a", "z"):
                (new / name).write_text("new")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert sorted(replaced) == ["a", "z"]
    assert {file.name: file.read_text() for file in path.iterdir()} == {
        "a": "new",
        "mine.txt": "old",
        "run.json": "old",
        "z": "new",
    }


def test_lines_are_added_whole(tmp_path: Path) -> None:
    append_lines(tmp_path / "lines", [1])
    append_lines(tmp_path / "lines", [{"a": [2]}, "b"])
    assert (tmp_path / "lines").read_text() == '1\n{"a": [2]}\n"b"\n'
    with pytest.raises(StorageError, match="choose another path"):
        append_lines(tmp_path, [1])
