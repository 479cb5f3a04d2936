"""The optional dependencies of a folder, and what to type where they are missing."""

import importlib.util


def need(folder: str, extra: str, *modules: str) -> None:
    """Raise ModuleNotFoundError, which says what to install, where one of the modules is not there."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"indrnn.{folder} needs {name}: pip install 'indrnn[{extra}]'", name=name)
