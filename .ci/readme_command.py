"""Print the one command line of README.md that ends with the words given: `readme_command.py -m pytest`."""

import pathlib
import re
import sys


def commands(readme: str) -> list[str]:
    """Every line of every shell block."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def main(ending: str) -> str:
    readme = pathlib.Path(__file__).parent.parent / "README.md"
    found = [line for line in commands(readme.read_text(encoding="utf-8")) if line.endswith(ending)]
    if len(found) != 1:
        sys.exit(f"README.md should hold one shell line that ends with `{ending}`; it holds {len(found)}: {found}")
    return found[0]


if __name__ == "__main__":
    print(main(" ".join(sys.argv[1:])))
