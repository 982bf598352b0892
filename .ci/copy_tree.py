"""Copy what a fresh clone would hold, with what is not committed yet: `copy_tree.py DESTINATION`.

The files git tracks or would track (new ones that no ignore rule names). Without git the whole tree is copied,
less the folders that tools make.
"""

import pathlib
import shutil
import subprocess
import sys


ROOT = pathlib.Path(__file__).resolve().parent.parent
MADE_BY_TOOLS = (".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "out")


def copy(destination: pathlib.Path) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        shutil.copytree(ROOT, destination, ignore=shutil.ignore_patterns(*MADE_BY_TOOLS), dirs_exist_ok=True)
        return
    for name in filter(None, listing.stdout.split("\0")):
        source, target = ROOT / name, destination / name
        if source.is_file():  # a tracked file may have been removed and the removal not committed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


if __name__ == "__main__":
    copy(pathlib.Path(sys.argv[1]))
