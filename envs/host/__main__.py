"""The start of a worker process: `python <path of this folder> <json>`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
NAME = "jaxvff_host"  # games of users import from it


def load() -> ModuleType:
    """The module `worker`, of this folder as a package: jaxvff need not be installed here."""
    # Python puts this folder on the path, where smac.py would hide the package smac.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]
    spec = importlib.util.spec_from_file_location(
        NAME, HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    return importlib.import_module(f"{NAME}.worker")


if __name__ == "__main__":
    load().main(sys.argv[1])
