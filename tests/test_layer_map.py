"""Layer maps against the tables of the Patient-KD and TinyBERT specifications."""

import pytest

from bertkd import LayerMap


@pytest.mark.parametrize(
    ("teacher", "student", "skip", "last"),
    [
        (12, 6, [2, 4, 6, 8, 10], [7, 8, 9, 10, 11]),
        (12, 3, [4, 8], [10, 11]),
        (24, 6, [4, 8, 12, 16, 20], [19, 20, 21, 22, 23]),
        (24, 3, [8, 16], [22, 23]),
        (6, 3, [2, 4], [4, 5]),
        (12, 4, [3, 6, 9], [9, 10, 11]),
        (6, 4, [1, 3, 4], [3, 4, 5]),
        (6, 6, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ],
)
def test_skip_and_last_tables(teacher: int, student: int, skip: list[int], last: list[int]) -> None:
    for layer_map, expected in ((LayerMap.skip(teacher, student), skip), (LayerMap.last(teacher, student), last)):
        assert layer_map.teacher_layers == expected
        assert layer_map.student_layers == list(range(1, student))


@pytest.mark.parametrize("teacher", range(2, 25))
def test_every_pair_of_depths_gives_maps_that_fit(teacher: int) -> None:
    for student in range(2, teacher + 1):
        for layer_map in (LayerMap.skip(teacher, student), LayerMap.last(teacher, student)):
            layer_map.check(teacher, student)
            assert max(layer_map.teacher_layers) < teacher  # the last layer is left out


def test_uniform_covers_embeddings_and_last_layer() -> None:
    assert LayerMap.uniform(12, 4).pairs == ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))
    with pytest.raises(ValueError, match=r"\(12\).*multiple.*\(5\)"):
        LayerMap.uniform(12, 5)


def test_parse_reads_pairs_and_lists_and_spec_writes_them() -> None:
    assert LayerMap.parse("1:2,2:4").pairs == ((1, 2), (2, 4))
    assert LayerMap.parse("2, 4").pairs == ((1, 2), (2, 4))
    assert LayerMap.parse("0:0,3:12").spec == "0:0,3:12"


def test_printing_shows_each_pair() -> None:
    assert "student layer 2 <- teacher layer 8" in str(LayerMap.skip(12, 3))


def test_resolve_names_and_explicit_maps() -> None:
    assert LayerMap.resolve("skip", 12, 3) == LayerMap.skip(12, 3)
    assert LayerMap.resolve("4,8", 12, 3) == LayerMap.skip(12, 3)
    assert LayerMap.resolve("2:8", 12, 3).pairs == ((2, 8),)
    assert LayerMap.resolve(LayerMap.last(12, 3), 12, 3) == LayerMap.last(12, 3)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("1:2,2:13", r"out of range: the student has 3 layers and the teacher 12"),
        ("1:2,4:8", r"out of range: the student has 3 layers and the teacher 12"),
        ("2,4,6", r"names 3 teacher layers, but a student of 3 layers and a teacher of 12 need 2"),
        ("2", r"names 1 teacher layers, but a student of 3 layers and a teacher of 12 need 2"),
        ("8,4", r"teacher layers of a layer map must increase"),
        ("2:4,1:8", r"student layers of a layer map must increase"),
        ("middle", r"Cannot read the layer map 'middle'"),
    ],
)
def test_wrong_maps_are_refused(strategy: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerMap.resolve(strategy, 12, 3)


@pytest.mark.parametrize(("teacher", "student"), [(12, 1), (3, 6)])
def test_depths_without_a_skip_map_are_refused_with_both_counts(teacher: int, student: int) -> None:
    with pytest.raises(ValueError, match=f"student has {student} and the teacher {teacher}"):
        LayerMap.skip(teacher, student)
