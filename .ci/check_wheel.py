"""Look at the built wheel, then at what it installs: `check_wheel.py WHEEL`, run from an empty folder."""

import pathlib
import sys
import zipfile


def check_contents(wheel: pathlib.Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "rnnscan/py.typed" in names, f"{wheel.name} lacks rnnscan/py.typed"
    assert any(name.endswith("licenses/LICENSE") for name in names), f"{wheel.name} lacks the licence"
    rooms = {name.split("/")[0] for name in names}
    strangers = {room for room in rooms if room != "rnnscan" and not room.endswith(".dist-info")}
    assert not strangers, f"{wheel.name} would also install {sorted(strangers)}"


def check_import() -> None:
    import jax.numpy as jnp

    import rnnscan as rs

    home = pathlib.Path(rs.__file__).parent
    assert "site-packages" in home.parts, f"rnnscan was imported from {home}, not from the wheel"

    def count(params, total, x):
        total = total * params["w_rec"] + x * params["w_x"]
        return total, total

    ones = {"w_rec": jnp.array(1.0), "w_x": jnp.array(1.0)}
    total, totals = rs.scan(count, ones, jnp.array(0.0), jnp.array([1.0, 0.0, 1.0, 1.0]))
    assert total == 3.0 and totals.tolist() == [1.0, 1.0, 2.0, 3.0], (total, totals)
    try:
        rs.plot  # noqa: B018  # only the runtime requirements are installed here
    except ImportError as error:
        assert "rnnscan[plot]" in str(error), error
    else:
        raise AssertionError("rs.plot should need matplotlib, which is not installed here")


if __name__ == "__main__":
    assert not any(pathlib.Path.cwd().iterdir()), "run this from an empty folder: what lies here could be imported"
    check_contents(pathlib.Path(sys.argv[1]))
    check_import()
    print(f"{pathlib.Path(sys.argv[1]).name}: installed, imported and run")
