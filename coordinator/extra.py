"""Whether the packages are there that only a coordinator needs, and a base install leaves out."""

from importlib.util import find_spec

NEEDED = ("numpy", "scipy", "sortedcontainers")


def problem() -> str:
    """What is missing and how to install it; "" if nothing is. Nothing is imported."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return ""
    return f"a coordinator needs {', '.join(missing)}: pip install 'hpopt[coordinator]'"
