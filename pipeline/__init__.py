"""Retrieval with small query images against a database of large ones.

The names below are loaded when they are first used:

    from pipeline import open_database, open_encoder

    encoder = open_encoder("emblems-48")
    database = open_database("emblems")
    for hit in database.search(encoder.encode(["query.jpg"])[0], 10):
        print(hit.rank, hit.similarity, hit.class_name, hit.name)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.library.losses import distillation_loss as distillation_loss
    from pipeline.library.measuring import evaluate_retrieval as evaluate_retrieval
    from pipeline.library.opening import open_database as open_database
    from pipeline.library.opening import open_encoder as open_encoder
    from pipeline.views.coupled import ViewRecipe as ViewRecipe
    from pipeline.views.coupled import coupled_views as coupled_views

_HOMES = {
    "ViewRecipe": "pipeline.views.coupled",
    "coupled_views": "pipeline.views.coupled",
    "distillation_loss": "pipeline.library.losses",
    "evaluate_retrieval": "pipeline.library.measuring",
    "open_database": "pipeline.library.opening",
    "open_encoder": "pipeline.library.opening",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
