"""Run mypy over the whole package and fail unless it saw every file.

`mypy -p sciml` in the repository's root would report success on the part that it can follow.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("sciml", "solvers", "datasets", "envs")


def main() -> int:
    expected = sum(len(list((ROOT / folder).rglob("*.py"))) for folder in FOLDERS)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "-p", "sciml"],
        cwd=ROOT / "build" / "view",
        env={"MYPYPATH": str(ROOT / "build" / "view"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    print(run.stdout + run.stderr, end="")
    if run.returncode:
        return run.returncode
    counted = re.search(r"in (\d+) source files", run.stdout)
    if counted is None or int(counted[1]) != expected:
        print(f"mypy checked {counted[1] if counted else 'no'} files, the tree has {expected}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
