"""What the body of a request holds: a picture, several as a form, or vectors as JSON."""

from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import HeaderParser
from typing import Annotated, Any

import numpy as np
from fastapi import HTTPException
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, FailFast, Field, FiniteFloat, ValidationError

MAX_QUERIES = 64  # pictures or vectors of a request
MAX_JSON_BYTES = 4 << 20  # 64 vectors of 2048 numbers; numbers take eight times their text
MAX_HEAD_BYTES = 4096  # of a part of a form
FORM, JSON = "multipart/form-data", "application/json"
_ONE = {"type": "string", "contentMediaType": "application/octet-stream"}
_MANY = {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MAX_QUERIES}


class Vectors(BaseModel):
    """Queries that are embedded already. They need not have unit length."""

    model_config = ConfigDict(extra="forbid")

    vectors: Annotated[
        list[Annotated[list[FiniteFloat], Field(min_length=1), FailFast()]],
        Field(min_length=1, max_length=MAX_QUERIES),
        FailFast(),  # of millions of faults the first is told, and no list made
    ]


# What FastAPI cannot know of bodies that it does not read.
PICTURES_BODY: dict[str, Any] = {
    "description": "A picture, or a form whose files are pictures, under any names of fields.",
    "required": True,
    "content": {
        "image/*": {"schema": _ONE},
        FORM: {"schema": {"type": "object", "additionalProperties": _MANY}},
    },
}
QUERIES_BODY: dict[str, Any] = {
    "description": "As of /embed; or vectors.",
    "required": True,
    "content": {**PICTURES_BODY["content"], JSON: {"schema": Vectors.model_json_schema()}},
}

Pictures = list[tuple[str, bytes]]


def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def read_pictures(body: bytes, content_type: str) -> Pictures:
    """The pictures of a body, encoded as they came, under names to speak of them by.

    Raises HTTPException 422 for a form that is damaged, empty, or holds other than files, 413 for
    one of too many.
    """
    if media_type(content_type) != FORM:
        return [("the picture", body)]
    pictures = list(_form_files(body, content_type))
    if not pictures:
        raise HTTPException(422, "the form holds no picture")
    return pictures


def _form_files(body: bytes, content_type: str) -> Iterator[tuple[str, bytes]]:
    """The files of a form. Source: RFC 7578, and RFC 2046 for the boundary, without a preamble."""
    told = Message()
    told["Content-Type"] = content_type
    if not (boundary := _parameter(told.get_boundary)):
        raise HTTPException(422, f"{FORM} names no boundary")
    start = f"--{boundary}".encode("latin-1", "replace")
    if not body.startswith(start):
        raise HTTPException(422, "the form does not begin with its boundary")
    *parts, end = body[len(start) :].split(b"\r\n" + start, MAX_QUERIES + 1)
    if len(parts) > MAX_QUERIES:
        raise HTTPException(413, f"a request holds at most {MAX_QUERIES} pictures")
    if not end.startswith(b"--"):
        raise HTTPException(422, "the form is cut off: it does not end with its boundary")
    for number, part in enumerate(parts, 1):
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = None
        if len(head) <= MAX_HEAD_BYTES:
            told = HeaderParser().parsestr(head.decode("utf-8", "replace"))
            name = _parameter(told.get_filename)
        if name is None:
            raise HTTPException(
                422, f"part {number} of the form is no file: parameters belong in the address"
            )
        yield f"picture {number} ({name})", content


def _parameter(read: Callable[[], str | None]) -> str | None:
    """A parameter of a header, whose sender may name any character set. Raises HTTPException."""
    try:
        said = read()
    except (ValueError, LookupError) as error:
        raise HTTPException(422, f"the form's headers cannot be read: {error!a}") from None
    return said and said.encode("utf-8", "replace").decode()


def count_vectors(body: bytes) -> int:
    """How many vectors a body of JSON holds, told without reading it; never too few.

    Raises HTTPException 413 for a large body.
    """
    if len(body) > MAX_JSON_BYTES:
        raise HTTPException(413, f"vectors have more than {MAX_JSON_BYTES} bytes of JSON")
    return body.count(b"[") - 1


def read_vectors(body: bytes, dim: int) -> Float[np.ndarray, "query dim"]:
    """The vectors of a body, scaled to unit length.

    Raises HTTPException 422 for another form, numbers that are not finite, a vector of zeros or of
    another length than `dim`; it names the vector, from 0 on.
    """
    try:
        rows = Vectors.model_validate_json(body).vectors
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(422, f"{place}: {first['msg']}") from None
    for number, row in enumerate(rows):
        if len(row) != dim:
            raise HTTPException(
                422, f"vectors.{number}: has {len(row)} numbers, those of the database {dim}"
            )
        if not any(row):
            raise HTTPException(422, f"vectors.{number}: is zero, which is similar to nothing")
    vectors = np.array(rows)
    vectors /= np.abs(vectors).max(axis=1, keepdims=True)  # else squares may overflow
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)
