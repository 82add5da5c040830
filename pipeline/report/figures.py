"""The figure of a study: accuracy against the cost of a query."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from pipeline.files import replacing

STYLES = {
    "teacher": ("#222222", "*", "teacher, full size"),
    "asymmetric": ("#0b6e99", "o", "student against the teacher's database"),
    "symmetric": ("#6aa84f", "s", "student against its own database"),
    "baseline": ("#b8860b", "^", "trained with labels at this size"),
    "naive": ("#c0392b", "X", "teacher fed small images"),
}


def draw_tradeoff(path: Path, table: pd.DataFrame, title: str) -> None:
    """Draw mAP with its interval over GMACs a query, a line a role, the Pareto front ringed.

    Networks of another backbone than the teacher's have hollow marks and a line of their own. The
    same table gives the same bytes.
    """
    of_teacher = table.loc[table["role"] == "teacher", "backbone"]
    # Names of elements are otherwise drawn at random, and text would depend on the fonts at hand.
    with mpl.rc_context({"svg.hashsalt": "tradeoff", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for role, (colour, marker, label) in STYLES.items():
            of_role = table[table["role"] == role].sort_values("gmacs")
            for backbone, rows in of_role.groupby("backbone", sort=False):
                own = backbone in set(of_teacher)
                below, above = rows["map"] - rows["map_low"], rows["map_high"] - rows["map"]
                axes.errorbar(
                    rows["gmacs"],
                    100 * rows["map"],
                    yerr=[100 * below, 100 * above],
                    color=colour,
                    marker=marker,
                    markersize=11 if role == "teacher" else 6,
                    markerfacecolor=colour if own else "none",
                    linewidth=1.2,
                    linestyle="-" if own else ":",
                    capsize=2,
                    label=label if own else f"{label}; {backbone}",
                )
        front = table[table["pareto"]]
        axes.scatter(
            front["gmacs"],
            100 * front["map"],
            s=170,
            facecolors="none",
            edgecolors="#888888",
            label="Pareto front",
        )
        for query_px, gmacs in table.groupby("query_px")["gmacs"].max().items():
            axes.annotate(
                f"{query_px} px",
                (gmacs, 0.015),
                xycoords=("data", "axes fraction"),
                ha="center",
                color="#666666",
            )
        axes.set_xscale("log")
        axes.set_xlabel("cost of a query in GMACs")
        axes.set_ylabel("mAP in %")
        axes.set_ylim(bottom=0)
        axes.set_title(title)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
