"""Make the environment that tests/oracles need, or find the one made before; print its Python: `peers.py`.

The peers are large, so their environment is kept in the user's cache under a name that tells what is in it: the
lock file, our own requirements and the Python. When one of these changes a new environment is made and the older
ones are removed.
"""

import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib


ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCK = ROOT / "tests" / "oracles" / "requirements.txt"


def name() -> str:
    """`peers-<hash>`; whatever could change an installed file goes into the hash."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    contents = (
        LOCK.read_text(encoding="utf-8"),
        project["dependencies"],
        project["optional-dependencies"],
        sys.version,
        platform.platform(),
    )
    return "peers-" + hashlib.sha256(repr(contents).encode()).hexdigest()[:16]


def works(environment: pathlib.Path) -> bool:
    """False for an environment that is not there, or whose Python has since been removed."""
    python = environment / "bin" / "python"
    return python.exists() and subprocess.run([python, "-c", "import pytest, jax"], capture_output=True).returncode == 0


def make(environment: pathlib.Path) -> None:
    """Install under a temporary name, then rename: an interrupted run leaves nothing that looks finished."""
    building = pathlib.Path(tempfile.mkdtemp(prefix="building-", dir=environment.parent))
    pip = [building / "bin" / "python", "-m", "pip"]
    try:
        for command in (
            [sys.executable, "-m", "venv", building],
            [*pip, "install", "-q", f"{ROOT}[test]", "-r", LOCK],
            [*pip, "uninstall", "-q", "-y", "rnnscan"],  # the tests import it from the tree
        ):
            subprocess.run(command, check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL)
        if environment.exists():
            shutil.rmtree(environment)
        building.rename(environment)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def main() -> pathlib.Path:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "rnnscan"
    cache.mkdir(parents=True, exist_ok=True)
    environment = cache / name()
    if works(environment):
        print(f"using {environment}", file=sys.stderr)
    else:
        print(f"making {environment}", file=sys.stderr)
        make(environment)
    for other in (*cache.glob("peers-*"), *cache.glob("building-*")):
        if other != environment:
            shutil.rmtree(other, ignore_errors=True)
    return environment / "bin" / "python"


if __name__ == "__main__":
    if not LOCK.is_file():
        sys.exit(f"{LOCK.relative_to(ROOT)} is missing; it locks the libraries that the oracle tests compare with")
    print(main())
