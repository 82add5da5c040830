"""Write what each stage's results depend on of the code, so that DVC runs what an edit touches."""

from pathlib import Path

from pipeline.code_digests import code_digests
from pipeline.files import write_text
from pipeline.paths import code_file, weights_digest
from stages import run_stage


def code(_: str) -> None:
    """For each stage a file of lines: the digest of a file of code, and its path.

    That of `hash_weights` lies beside what it writes, a folder that other stages read: so the
    folder is there, too, where no network starts from a file.
    """
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "code"):
            digests = code_digests(f"stages.{path.stem}")
            text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
            is_beside = path.stem == "hash_weights"
            write_text(weights_digest("code") if is_beside else code_file(path.stem), text)


if __name__ == "__main__":
    run_stage(code)
