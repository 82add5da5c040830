"""What the server answers: the catalogue, pictures of it, embeddings, and what is similar."""

import time
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO

from fastapi import HTTPException
from PIL import Image

from pipeline.config.params import Params
from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.models.query_encoder import square_view
from pipeline.search.databases import Database, VectorDatabase
from pipeline.search.page.bodies import Pictures, read_vectors
from pipeline.search.page.figures import false_match_score, own_threshold, query_gmacs
from pipeline.search.page.opened import MAX_OPEN, Opened, Place
from pipeline.search.page.schema import Answers, Embeddings, Entry, Example, Found
from pipeline.search.pictures import thumbnail
from pipeline.search.search import NamedNetwork, embed_view, search_picture

EXAMPLES = 8
THUMBNAIL_PX = 192
THUMBNAILS_KEPT = 1000  # of some 10 kB
MAX_FULL_BYTES = 20 << 20  # of a picture that is shown in full: what the page takes as a query
MAX_UPLOAD_PIXELS = 40_000_000  # of all pictures of a request


class SearchService:
    """Several threads may call it.

    Of all of it: raises HTTPException 404 for names that are not there, UnreadableImage for a
    picture, and ValueError for files of the workspace that are damaged or do not fit together. Of
    several pictures one that cannot be read refuses all.
    """

    def __init__(self, params: Params, file: NamedNetwork | None = None) -> None:
        """file: as of `Opened`."""
        self.opened = Opened(params, file)
        self._thumbnail = lru_cache(THUMBNAILS_KEPT)(self._shown)
        self._score = lru_cache(MAX_OPEN)(self._false_match_score)

    def catalogue(self) -> Iterator[Entry]:
        """What can be searched; of a database that is broken, what is wrong. One of a data set that
        is not selected is left out.
        """
        for name in self.opened.names():
            try:
                place = self.opened.place(name)
                with self.opened.database(place) as database:
                    yield self._entry(place, database)
            except HTTPException:
                continue
            except (ValueError, OSError) as error:
                yield Entry(name=name, fault=str(error))

    def _entry(self, place: Place, database: Database | VectorDatabase) -> Entry:
        examples = []
        if isinstance(database, Database):
            names, classes = database.names, database.class_names
            examples = [
                Example(row=row, name=names[row], class_name=classes[row])
                for row in sorted({i * len(database) // EXAMPLES for i in range(EXAMPLES)})
            ]
        return Entry(
            name=place.name,
            images=len(database),
            networks=list(self.opened.networks(place)),
            has_pictures=isinstance(database, Database),
            examples=examples,
        )

    def picture(self, database: str, row: int) -> bytes:
        """The encoded picture of a row. Raises UnreadableImage for one that is too large to be
        shown in full, too.
        """
        place = self.opened.place(database)
        self._shown(place, row)  # what is no picture is not given away
        with self.opened.database(place) as opened:
            encoded = opened.read(row)
        if len(encoded) > MAX_FULL_BYTES:
            reason = f"has {len(encoded)} bytes, more than {MAX_FULL_BYTES}"
            raise UnreadableImage(f"picture {row}", reason)
        return encoded

    def thumbnail(self, database: str, row: int) -> bytes:
        """A small JPEG of a row."""
        return self._thumbnail(self.opened.place(database), row)

    def _shown(self, place: Place, row: int) -> bytes:
        with self.opened.database(place) as database:
            if not 0 <= row < len(database):
                message = f"{place.name} has no picture {row}: it has {len(database)}"
                raise HTTPException(404, message)
            return thumbnail(database.read(row), THUMBNAIL_PX, f"picture {row}")

    def _false_match_score(self, place: Place) -> float | None:
        with self.opened.database(place) as database:
            assert isinstance(database, Database)
            return false_match_score(database)

    def search(
        self, pictures: Pictures, database: str | None, network: str | None, k: int
    ) -> Answers:
        """The `k` images most similar to each picture."""
        place = self.opened.place(database)
        named, encoder = self.opened.network(place, network)
        answers = []
        with self.opened.database(place) as opened:
            score = self._score(place) if isinstance(opened, Database) else None
            for name, picture, decode_ms in _decoded(pictures):
                found = search_picture(picture, encoder, opened, k)
                times_ms = {"decode": decode_ms, **found.times_ms}
                answers.append(Found(query=name, times_ms=times_ms, hits=found.hits))
        return Answers(
            database=place.name,
            network=named.key,
            champion_version=named.version,
            query_px=encoder.size_px,
            gmacs=query_gmacs(named),
            threshold=own_threshold(named, score),
            answers=answers,
        )

    def search_vectors(self, body: bytes, database: str | None, k: int) -> Answers:
        """The `k` images most similar to each vector of a body of JSON."""
        place = self.opened.place(database)
        answers = []
        with self.opened.database(place) as opened:
            for number, vector in enumerate(read_vectors(body, opened.dim)):
                started_s = time.perf_counter()
                hits = opened.search(vector, k)
                times_ms = {"search": 1000 * (time.perf_counter() - started_s)}
                answers.append(Found(query=f"vectors.{number}", times_ms=times_ms, hits=hits))
        return Answers(
            database=place.name,
            network=None,
            champion_version=None,
            query_px=None,
            gmacs=None,
            threshold=None,
            answers=answers,
        )

    def embed(self, pictures: Pictures, database: str | None, network: str | None) -> Embeddings:
        """The vector of each picture; a database is named for its networks."""
        named, encoder = self.opened.network(self.opened.place(database), network)
        vectors = [
            embed_view(square_view(picture, encoder.size_px), encoder).tolist()
            for _, picture, _ in _decoded(pictures)
        ]
        return Embeddings(
            network=named.key,
            champion_version=named.version,
            size_px=encoder.size_px,
            dimension=len(vectors[0]),
            vectors=vectors,
        )

    def view(self, pictures: Pictures, database: str | None, network: str | None) -> bytes:
        """A PNG of exactly those pixels that a network is fed of a picture, the first one."""
        _, encoder = self.opened.network(self.opened.place(database), network)
        _, picture, _ = next(_decoded(pictures))
        buffer = BytesIO()
        Image.fromarray(square_view(picture, encoder.size_px)).save(buffer, "PNG")
        return buffer.getvalue()


def _decoded(pictures: Pictures) -> Iterator[tuple[str, Image.Image, float]]:
    """Each picture with its name and the milliseconds that decoding took."""
    left = MAX_UPLOAD_PIXELS
    for name, encoded in pictures:
        started_s = time.perf_counter()
        picture = decode_image(encoded, name, max_pixels=left)
        yield name, picture, 1000 * (time.perf_counter() - started_s)
        left = max(1, left - picture.width * picture.height)
