"""Gather the rows of a data set into the trade-off table and figure."""

from pipeline.config.params import load_params
from pipeline.files import write_json, write_text
from pipeline.paths import DatasetPaths
from pipeline.report.figures import draw_tradeoff
from pipeline.report.tradeoff import collect_rows, is_subset, markdown_table, write_tradeoff
from stages import run_stage


def tradeoff(name: str) -> None:
    params = load_params()
    paths = DatasetPaths(name)
    cells = params.cells_of(name)
    table = collect_rows(paths, cells)
    write_text(paths.results / "accuracy.csv", table.to_csv(index=False))
    write_text(paths.results / "tradeoff.md", markdown_table(table))
    summary = {
        f"{row['network']}.{row['role']}": {"map": row["map"], "gmacs": row["gmacs"]}
        for row in table.to_dict("records")
    }
    write_json(paths.results / "metrics.json", summary)
    title = f"{name}{' (subset)' if is_subset(table) else ''}: accuracy and cost of a query"
    draw_tradeoff(paths.results / "tradeoff.svg", table, title)
    # Beside the outputs, and none of them: it holds times, which differ from run to run.
    write_tradeoff(paths, cells)


if __name__ == "__main__":
    run_stage(tradeoff)
