"""The script that the zygote is started with: ``python -I -S start.py FD LEVEL``.

Loads the folder under another name, so that neither the package that contains it nor any installed package is imported,
and `sys.path` stays as it is.
"""

import importlib.util
import os
import socket
import sys

NAME = "_sharpen_sandbox"


def main() -> None:
    folder = os.path.dirname(os.path.realpath(__file__))
    spec = importlib.util.spec_from_file_location(
        NAME, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} cannot be loaded")
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    zygote = importlib.import_module(f"{NAME}.zygote")
    # Remove the script's own folder: programs could import these modules from it.
    sys.path = [path for path in sys.path if path != folder]
    zygote.serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
