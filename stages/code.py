"""Write what each stage's results depend on of the code, so that DVC runs what an edit touches."""

from importlib.metadata import version
from pathlib import Path

from pipeline.code_digests import code_digests
from pipeline.files import write_text
from pipeline.paths import WORK, code_file, weights_digest
from stages import run_stage

# In place of DVC's own page of plots, which fetches these scripts from the network.
PLOTS_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Plots</title>{refresh_tag}<script>%s</script></head>
<body>{plot_divs}</body>
</html>
"""


def code(_: str) -> None:
    """For each stage a file of lines: the digest of a file of code, and its path.

    That of `hash_weights` lies beside what it writes, a folder that other stages read: so the
    folder is there, too, where no network starts from a file. `plots.html` is what DVC makes its
    page of plots from, as .dvc/config says.
    """
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "code"):
            digests = code_digests(f"stages.{path.stem}")
            text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
            is_beside = path.stem == "hash_weights"
            write_text(weights_digest("code") if is_beside else code_file(path.stem), text)
    write_text(code_file("plots").with_suffix(".html"), PLOTS_PAGE % _vega())


def _vega() -> str:
    """The scripts that draw plots, as one, for the major version of DVC's templates.

    They are kept: a package brings them, but takes two seconds to join them.
    """
    kept = WORK / f"vega-{version('vl-convert-python')}.js"
    if not kept.exists():
        from vl_convert import javascript_bundle

        write_text(kept, javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version="5.21"))
    return kept.read_text(encoding="utf-8")


if __name__ == "__main__":
    run_stage(code)
