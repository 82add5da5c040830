"""ONNX Runtime Web: the program that runs the network in a browser, from where the user has it."""

import gzip
import os
import shutil
from pathlib import Path

# Of its folder `dist`: the script with all that it needs, and the program, of whatever threads.
SCRIPT, PROGRAM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
PACKAGE = "onnxruntime-web"
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")


def find_runtime(given: Path | None, here: Path) -> Path:
    """The folder that holds `SCRIPT` and `PROGRAM`.

    given: that folder, or one with node_modules. Without it, node_modules of `here` is looked into,
    and the folders of NODE_PATH. Raises ValueError where there is none.
    """
    modules = [Path(folder) for folder in os.environ.get("NODE_PATH", "").split(os.pathsep)]
    if given is not None:
        places = [given, given / "dist", given / "node_modules" / PACKAGE / "dist"]
    else:
        places = [folder / PACKAGE / "dist" for folder in (here / "node_modules", *modules)]
    for place in places:
        if (place / SCRIPT).is_file() and (place / PROGRAM).is_file():
            return place
    what = f"--web needs ONNX Runtime Web ({SCRIPT}, {PROGRAM})"
    if given is not None:
        raise ValueError(f"--runtime {given}: holds no such files; {what}: give its folder dist")
    raise ValueError(f"{what}: `npm install {PACKAGE}` here, or name its folder with --runtime")


def copy_runtime(source: Path, target: Path) -> None:
    """Write ort.js, ort.wasm.gz and the licences into the folder `target`.

    The program is packed here, to a quarter: many a static server would send it as it is. The
    script has a name that every server gives the type of a script.
    """
    import onnxruntime

    target.mkdir()
    shutil.copyfile(source / SCRIPT, target / "ort.js")
    program = gzip.compress((source / PROGRAM).read_bytes(), mtime=0)
    (target / "ort.wasm.gz").write_bytes(program)
    for name in LICENCES:  # the npm package carries none; these are of the same project
        shutil.copyfile(Path(onnxruntime.__file__).with_name(name), target / name)
