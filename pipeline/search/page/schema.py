"""What the server answers, as /openapi.json describes it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.search.databases import Hit


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Fault(_Answer):
    """What is wrong, in words."""

    error: str


class Example(_Answer):
    """A picture of a database."""

    row: int
    name: str
    class_name: str


class Entry(_Answer):
    """A database that can be searched, or what is wrong with it."""

    name: str
    images: int = 0
    networks: Annotated[
        list[str], Field(description="That its vectors can be searched with; the first if none is.")
    ] = []
    has_pictures: Annotated[bool, Field(description="An index of vectors has none.")] = False
    examples: list[Example] = []
    fault: str | None = None


class Embeddings(_Answer):
    """Unit vectors, in the order of the pictures."""

    network: str
    champion_version: Annotated[str | None, Field(description="Of the champion that it is.")]
    size_px: Annotated[int, Field(description="The side of the view that the network sees.")]
    dimension: int
    vectors: list[list[float]]


class Found(_Answer):
    """What is most similar to one query."""

    query: Annotated[str, Field(description="The picture or vector, by place and file name.")]
    times_ms: Annotated[dict[str, float], Field(description="Of each step.")]
    hits: list[Hit]


class Answers(_Answer):
    """The results, in the order of the queries."""

    database: str
    network: Annotated[str | None, Field(description="None where vectors were sent.")]
    champion_version: str | None
    query_px: int | None
    gmacs: Annotated[
        float | None, Field(description="10^9 multiply-accumulates of a query, where evaluated.")
    ]
    threshold: Annotated[
        float | None,
        Field(
            description="What 1 % of the false matches in the database reach by the network's "
            "similarity; what is below it is not similar. None where it is not calibrated."
        ),
    ]
    answers: list[Found]
