"""What every job is given and hands back: `run(settings) -> list[Merit]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


JOBS = ("counting", "from_tensorflow", "ode", "own_cell", "rows", "series")


@dataclass(frozen=True)
class Settings:
    """How to run: `fast` takes seconds (for checks), `full` is the long run; `out` takes the figures."""

    fast: bool = False
    full: bool = False
    out: Path = Path("out")

    def save(self, fig: Any, name: str) -> Path:
        """Writes a figure as `out/name.png`, closes it and says where it is."""
        import matplotlib.pyplot as plt  # slow to import, and of no use before the first figure

        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.png"
        fig.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(fig)
        print(f"  figure: {path}")
        return path


@dataclass(frozen=True)
class Merit:
    """One figure of merit: `what` was measured, `ours` beside the published or `expected` one, and if it was `met`."""

    job: str
    what: str
    ours: str
    expected: str
    met: bool

    @property
    def verdict(self) -> str:
        """`ok` or `MISSED`; `not run` where `ours` begins so, for want of a package that is not installed."""
        return "not run" if self.ours.startswith("not run") else "ok" if self.met else "MISSED"


def table(merits: list[Merit]) -> str:
    """The merits as aligned text, one a line, the verdict last."""
    head = ("job", "figure of merit", "ours", "published / expected", "verdict")
    rows = [head, *((m.job, m.what, m.ours, m.expected, m.verdict) for m in merits)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
