"""Search: networks by name, pictures by name, databases and stored indexes."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.params import Params, load_params
from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.datasets.reader import MAX_FILE_BYTES, read_file
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.models.query_encoder import least_decoded_px, square_view
from pipeline.models.torch_encoder import TorchEncoder
from pipeline.search import index
from pipeline.search.databases import (
    Database,
    VectorDatabase,
    image_id,
    open_image_index,
    open_study_database,
)
from pipeline.search.index import require_card
from pipeline.search.indexing import index_folder
from pipeline.search.pictures import (
    image_names,
    name_pictures,
    thumbnail,
)
from pipeline.search.search import (
    TEACHER,
    NamedNetwork,
    choose_network,
    networks_of,
    open_network,
    search_picture,
)
from pipeline.search.structures import IndexKind, read_index, write_image_index
from pipeline.search.upkeep import build_index, hold_index
from tests.made_study import CPU, DIM, STUDENT, make_finished_study, write_test_images

TEACHER_OF_EMBLEMS = NamedNetwork(TEACHER, "emblems")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_finished_study(tmp_path_factory.mktemp("made") / "study")


@pytest.fixture
def study(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study of one's own, and the current folder."""
    folder = tmp_path / "study"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def params(study: Path) -> Params:
    return load_params()


@pytest.fixture
def teacher(study: Path) -> TorchEncoder:
    return open_network(TEACHER_OF_EMBLEMS, CPU)


def unit_vectors(rows: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def made_database(folder: Path, vectors: np.ndarray, kind: IndexKind) -> Database:
    """Entries whose ids are three times their rows."""
    ids = 3 * np.arange(len(vectors))
    write_image_index(folder / "index.faiss", vectors, ids, kind, threads=1)
    return Database(
        name="made",
        dataset="emblems",
        index=read_index(folder / "index.faiss"),
        is_exact=kind == "exact",
        vectors=vectors,
        ids=ids,
        names=[f"{row}.jpg" for row in range(len(vectors))],
        class_names=[""] * len(vectors),
        read=lambda row: b"",
    )


def test_the_default_network_is_the_first_student_of_the_data_set(params: Params) -> None:
    assert choose_network(params, None, None) == NamedNetwork(STUDENT, "emblems")
    assert choose_network(params, None, "emblems") == NamedNetwork(STUDENT, "emblems")
    assert choose_network(params, STUDENT, None) == NamedNetwork(STUDENT, "emblems")
    assert choose_network(params, TEACHER, None) == TEACHER_OF_EMBLEMS
    assert networks_of(params, "emblems") == [STUDENT, TEACHER]


def test_names_that_do_not_agree_are_refused(params: Params) -> None:
    both = params.model_copy(
        update={"datasets": {**params.datasets, "other": params.datasets["emblems"]}}
    )
    with pytest.raises(ValueError, match="'tiny-16' belongs to emblems, not to other"):
        choose_network(both, STUDENT, "other")
    assert choose_network(both, None, "other") == NamedNetwork(TEACHER, "other")  # no student
    with pytest.raises(ValueError, match="no such network; known: teacher, tiny-16"):
        choose_network(both, "tiny-17", None)
    with pytest.raises(ValueError, match="no such data set; known: emblems, other"):
        choose_network(both, None, "emblem")


def test_exact_search_is_the_sorted_inner_product(tmp_path: Path) -> None:
    vectors = unit_vectors(50)
    database = made_database(tmp_path, vectors, "exact")
    query = unit_vectors(1, seed=1)[0]
    hits = database.search(query, 5)
    similarity = vectors @ query
    best = sorted(range(50), key=lambda row: -similarity[row])[:5]
    assert [hit.row for hit in hits] == best
    assert [hit.id for hit in hits] == [image_id(f"{row}.jpg") for row in best]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.name for hit in hits] == [f"{row}.jpg" for row in best]
    np.testing.assert_allclose([hit.similarity for hit in hits], similarity[best], atol=1e-6)


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_more_results_than_there_are_images(tmp_path: Path, kind: IndexKind) -> None:
    hits = made_database(tmp_path, unit_vectors(3), kind).search(unit_vectors(1)[0], 10)
    assert sorted(hit.row for hit in hits) == [0, 1, 2]
    assert hits[0].row == 0
    assert hits[0].similarity == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("kind", "least_recall"), [("hnsw", 0.95), ("ivfpq", 0.9)])
def test_approximate_search_finds_most_and_scores_exactly(
    tmp_path: Path, kind: IndexKind, least_recall: float
) -> None:
    vectors = unit_vectors(2000)
    database = made_database(tmp_path, vectors, kind)
    found = 0
    for query in unit_vectors(20, seed=1):
        similarity = vectors @ query
        hits = database.search(query, 10)
        np.testing.assert_allclose(
            [hit.similarity for hit in hits], similarity[[hit.row for hit in hits]], atol=1e-6
        )
        assert sorted((h.similarity for h in hits), reverse=True) == [h.similarity for h in hits]
        found += len({hit.row for hit in hits} & set(np.argsort(-similarity)[:10].tolist()))
    assert found >= least_recall * 200


@pytest.mark.parametrize("of_vectors", [False, True])
def test_a_query_that_fits_nothing_is_refused(tmp_path: Path, of_vectors: bool) -> None:
    database: Database | VectorDatabase
    if of_vectors:
        ids = ["a.jpg", "b.jpg", "c.jpg"]
        write_vectors(tmp_path / "v", [VectorBatch(ids, unit_vectors(3), [""] * 3)])
        build_index(tmp_path / "i", tmp_path / "v", "exact")
        database = VectorDatabase("made", hold_index(tmp_path / "i"))
    else:
        database = made_database(tmp_path, unit_vectors(3), "exact")
    query = unit_vectors(1)[0]
    assert len(database.search(query, 2)) == 2
    with pytest.raises(ValueError, match="the query has 8 numbers and made 32"):
        database.search(query[:8], 1)
    with pytest.raises(ValueError, match="not finite"):
        database.search(np.full(32, np.nan, np.float32), 1)
    with pytest.raises(ValueError, match="k = 0: must be 1 or more"):
        database.search(query, 0)


def test_equal_vectors_give_equal_files(tmp_path: Path) -> None:
    vectors, ids = unit_vectors(300), np.arange(300)
    for kind in ("exact", "hnsw", "ivfpq"):
        for name in ("one", "two"):
            write_image_index(tmp_path / name, vectors, ids, kind, threads=1)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes(), kind


def test_a_test_image_finds_itself_first(study: Path, teacher: TorchEncoder) -> None:
    database = open_study_database("emblems")
    assert len(database) == 30
    for row in range(len(database)):
        picture = decode_image(database.read(row), "picture")
        answer = search_picture(picture, teacher, database, 1)
        assert answer.hits[0].row == row
        assert answer.hits[0].similarity == pytest.approx(1, abs=1e-5)
        assert list(answer.times_ms) == ["view", "embed", "search"]
        assert all(time_ms >= 0 for time_ms in answer.times_ms.values())


def test_a_reduced_decode_finds_the_same_image(study: Path, teacher: TorchEncoder) -> None:
    database = open_study_database("emblems")
    buffer = BytesIO()
    large = decode_image(database.read(4), "picture").resize((1024, 1024))
    large.save(buffer, format="JPEG", quality=95)
    full, reduced = (
        search_picture(
            decode_image(buffer.getvalue(), "picture", least_px=least_px), teacher, database, 1
        )
        for least_px in (None, least_decoded_px(teacher.size_px))
    )
    assert full.hits[0].row == reduced.hits[0].row
    assert full.hits[0].similarity == pytest.approx(reduced.hits[0].similarity, abs=1e-3)
    assert full.hits[0].similarity != reduced.hits[0].similarity


def test_ids_survive_a_rebuild_and_do_not_depend_on_the_order(
    study: Path, tmp_path: Path, teacher: TorchEncoder
) -> None:
    files = write_test_images(study, tmp_path / "all", 9)
    half = tmp_path / "half"
    for file in files[5:]:
        target = half / file.relative_to(tmp_path / "all")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    once = index_folder(tmp_path / "all", "once", TEACHER_OF_EMBLEMS, teacher)
    index_folder(half, "grown", TEACHER_OF_EMBLEMS, teacher)
    grown = index_folder(tmp_path / "all", "grown", TEACHER_OF_EMBLEMS, teacher)
    assert (once.added, grown.added, grown.unchanged, grown.card.images) == (9, 5, 4, 9)
    one, two = open_image_index("once"), open_image_index("grown")
    assert one.names == two.names
    assert one.ids.tolist() == two.ids.tolist() == [image_id(name) for name in one.names]
    assert one.ids.tolist() == sorted(one.ids.tolist())
    np.testing.assert_allclose(one.vectors, two.vectors, atol=1e-6)
    rebuilt = index_folder(
        tmp_path / "all", "grown", TEACHER_OF_EMBLEMS, teacher, kind="hnsw", rebuild=True
    )
    assert (rebuilt.added, rebuilt.card.kind, rebuilt.card.generation) == (9, "hnsw", 3)
    again = open_image_index("grown")
    assert again.ids.tolist() == one.ids.tolist()
    assert sorted(path.name for path in Path("indexes/grown").iterdir()) == ["3", "index.json"]
    for row in range(9):
        hits = again.search(np.asarray(one.vectors[row]), 3)
        assert [hit.name for hit in hits] == [
            hit.name for hit in one.search(np.asarray(one.vectors[row]), 3)
        ]
        assert again.read(row) == (tmp_path / "all" / again.names[row]).read_bytes()
    assert {hit.class_name for hit in hits} <= {file.parent.name for file in files}


def test_an_id_is_63_bits_of_the_hash_of_the_name() -> None:
    # printf cats/1.jpg | sha256sum | cut -c1-16, halved
    assert image_id("cats/1.jpg") == 0xDEDAA2DC216FD404 >> 11
    assert 0 <= image_id("ä") < 2**53


def test_nothing_new_leaves_the_generation_in_force(
    study: Path, tmp_path: Path, teacher: TorchEncoder
) -> None:
    write_test_images(study, tmp_path / "images", 3)
    for added in (3, 0):
        report = index_folder(tmp_path / "images", "a", TEACHER_OF_EMBLEMS, teacher)
        assert (report.added, report.card.generation) == (added, 1)
    other_kind = index_folder(tmp_path / "images", "a", TEACHER_OF_EMBLEMS, teacher, kind="hnsw")
    assert (other_kind.added, other_kind.card.generation) == (0, 2)


def test_changed_images_need_a_word(study: Path, tmp_path: Path, teacher: TorchEncoder) -> None:
    folder = tmp_path / "images"
    files = write_test_images(study, folder, 3)
    index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher)
    shutil.copy(files[0], files[1])
    name = files[1].relative_to(folder).as_posix()
    with pytest.raises(ValueError, match=f"other images of these names: {name}"):
        index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher)
    report = index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher, take_changed=True)
    assert (report.added, report.replaced, report.unchanged, report.card.images) == (0, 1, 2, 3)
    database = open_image_index("a")
    hits = database.search(teacher_vector(teacher, files[0]), 2)
    assert [hit.similarity for hit in hits] == pytest.approx([1, 1], abs=1e-5)


def teacher_vector(teacher: TorchEncoder, file: Path) -> np.ndarray:
    picture = decode_image(file.read_bytes(), file.name)
    return teacher.embed(square_view(picture, teacher.size_px)[None])[0]


def test_unreadable_images_are_reported_and_the_rest_goes_in(
    study: Path, tmp_path: Path, teacher: TorchEncoder
) -> None:
    folder = tmp_path / "images"
    write_test_images(study, folder, 2)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "hidden").mkdir()
    (folder / ".hidden.jpg").write_bytes(b"")
    report = index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher)
    assert report.added == 2
    assert [str(failure) for failure in report.failures] == [
        "broken.jpg: is not an image of a known format"
    ]


def test_a_failure_while_writing_leaves_the_index_in_force(
    study: Path, tmp_path: Path, teacher: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    write_test_images(study, folder, 2)
    index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher)
    write_test_images(study, folder, 4)

    def full_disk(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(index, "write_json", full_disk)
        with pytest.raises(OSError, match="No space"):
            index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher)
    assert len(open_image_index("a")) == 2
    assert index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher).added == 2
    assert len(open_image_index("a")) == 4
    assert sorted(path.name for path in Path("indexes/a").iterdir()) == ["2", "index.json"]


def test_an_open_index_goes_on_while_another_takes_its_place(
    study: Path, tmp_path: Path, teacher: TorchEncoder
) -> None:
    folder = tmp_path / "images"
    files = write_test_images(study, folder, 2)
    index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher)
    opened = open_image_index("a")
    write_test_images(study, folder, 5)
    index_folder(folder, "a", TEACHER_OF_EMBLEMS, teacher)
    hits = opened.search(teacher_vector(teacher, files[0]), 5)
    assert len(hits) == 2
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_an_index_of_another_teacher_is_not_searched(
    study: Path, tmp_path: Path, teacher: TorchEncoder
) -> None:
    write_test_images(study, tmp_path / "images", 2)
    index_folder(tmp_path / "images", "a", TEACHER_OF_EMBLEMS, teacher)
    path = TEACHER_OF_EMBLEMS.path
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\1\0")
    with pytest.raises(ValueError, match="embedded by another teacher"):
        open_image_index("a")
    with pytest.raises(ValueError, match="another teacher of emblems: --rebuild"):
        index_folder(tmp_path / "images", "a", TEACHER_OF_EMBLEMS, teacher)
    assert (
        index_folder(tmp_path / "images", "a", TEACHER_OF_EMBLEMS, teacher, rebuild=True).added == 2
    )


def test_the_card_of_an_index_is_checked(study: Path) -> None:
    home = Path("indexes/a")
    home.mkdir(parents=True)
    with pytest.raises(ValueError, match="index a: there is none; known: none"):
        require_card("a")
    good = {"generation": 1, "dataset": "emblems", "teacher_sha256": "", "kind": "exact"}
    for bad in (
        "{",
        "[]",
        json.dumps(good),
        json.dumps(good | {"images": 1, "kind": "other"}),
        json.dumps(good | {"images": 1, "generation": "../.."}),
        json.dumps(good | {"images": 1, "version": 2}),
    ):
        (home / "index.json").write_text(bad)
        with pytest.raises(ValueError, match="is not the card of an index"):
            require_card("a")
    (home / "index.json").write_text(json.dumps(good | {"images": 1}))  # of the first version
    assert require_card("a").version == 1
    for name in ("", "..", "a/b", ".hidden", "a\n"):
        with pytest.raises(ValueError, match="must be letters"):
            require_card(name)


def test_pictures_are_named_by_file_folder_glob_and_list(tmp_path: Path) -> None:
    for name in (
        "b10.jpg",
        "b2.jpg",
        "deep/er/c.png",
        ".no.jpg",
        ".no/d.jpg",
        "text.txt",
        "[x].jpg",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")

    def named(*arguments: str, listed: tuple[str, ...] = ()) -> list[str]:
        return name_pictures(arguments, tmp_path, listed)

    assert named(".") == ["[x].jpg", "b2.jpg", "b10.jpg", "deep/er/c.png"]
    assert named("b*.jpg") == ["b2.jpg", "b10.jpg"]
    assert named("**/*.png") == ["deep/er/c.png"]
    assert named("[x].jpg") == ["[x].jpg"]  # a file of that name, not a pattern
    assert named("text.txt", "gone.jpg", "text.txt") == ["text.txt", "gone.jpg"]
    assert named("-", listed=("b2.jpg\r\n", "\n", " \n", "deep/er/c.png")) == [
        "b2.jpg",
        "deep/er/c.png",
    ]
    assert named("/elsewhere/a.jpg", str(tmp_path / "b2.jpg")) == ["/elsewhere/a.jpg", "b2.jpg"]
    assert named("a\0b") == ["a\0b"]  # reading it says what is wrong
    for argument in ("-", "*.gif"):
        with pytest.raises(ValueError, match="names no image; give a file, a folder"):
            name_pictures([argument], tmp_path, ())
    with pytest.raises(ValueError, match="is not a folder"):
        image_names(tmp_path / "b2.jpg")


def test_only_plain_files_of_a_sane_size_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for name, reason in (
        ("pipe.jpg", "is not a plain file"),
        ("gone.jpg", "there is no such file"),
        ("a\0b", "there is no such file"),
        (".", "is not a plain file"),
        ("large.jpg", "more than"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            read_file(tmp_path / name, name)


def test_a_thumbnail_fits_and_is_a_picture(study: Path) -> None:
    database = open_study_database("emblems")
    small = decode_image(thumbnail(database.read(0), 20), "thumbnail")
    assert small.size == (20, 20)


def test_embeddings_are_unit_vectors(teacher: TorchEncoder) -> None:
    views = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    vectors = teacher.embed(views)
    assert vectors.shape == (3, DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
