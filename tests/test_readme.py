"""What the README shows works when pasted."""

import re
import shlex
from pathlib import Path

import pytest

from sciml.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_solving_in_python(capsys: pytest.CaptureFixture) -> None:
    names: dict = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)
    assert "linf" in capsys.readouterr().out
    assert Path("star.vtu").exists()
    continued = [block for block in BLOCKS if block.startswith("# continued")]
    assert len(continued) == 3
    for block in continued:
        exec(compile(block, "README.md", "exec"), names)
        assert capsys.readouterr().out
    assert Path("flow.h5").exists()


def test_datasets_in_python(capsys: pytest.CaptureFixture) -> None:
    blocks = [block for block in BLOCKS if block.startswith("# datasets")]
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "True\n" in out
    assert "820 torch.Size([10, 256, 1])" in out
    assert "(2, 3, 1, 64, 64)" in out


def test_sampling(capsys: pytest.CaptureFixture) -> None:
    (block,) = (block for block in BLOCKS if block.startswith("# sampling"))
    exec(compile(block, "README.md", "exec"), {})
    errors = [float(line.split()[-1]) for line in capsys.readouterr().out.strip().split("\n")]
    assert errors[0] < 0.05
    assert errors[2] < errors[1] < errors[0]


def test_plugin() -> None:
    block = next(block for block in BLOCKS if block.startswith("# mine.py"))
    Path("mine.py").write_text(block)
    commands = re.findall(r"^    (sciml .*--plugin mine.py.*)$", README, flags=re.M)
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
    assert Path("torsion.h5").exists()


def test_commands_and_links_exist() -> None:
    for command in re.findall(r"^    sciml (\w+)", README, flags=re.M):
        assert command in COMMANDS
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_figures_come_from_results() -> None:
    """Errors that the README repeats stand, rounded, in the generated table."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert "| p = 3 | 320 | 32573 |" in results
    exact = float(re.search(r"\| p = 3 \| 320 \| 32573 \| \S+ \| (\S+) \|", results)[1])
    assert f"L2 error {exact:.1e}" in README
    darcy = re.search(r"Tucker weights on Darcy, trained at 43 x 43(.*?)\n## ", results, flags=re.S)[1]
    for grid in ("43 x 43", "85 x 85"):
        assert re.search(rf"\| {grid} \| (\S+) \|", darcy)[1] in README
