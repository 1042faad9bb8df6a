"""The draw."""

from collections import Counter

from tests.mutation.operators import mutants_of
from tests.mutation.sampling import sample


def mutants(path, number):
    return mutants_of(path, b"".join(b"x%d = %d\n" % (n, n) for n in range(number)))


ROOMS = {"large": mutants("large.py", 300), "small": mutants("small.py", 100)}


def keys(drawn):
    return [mutant.key for mutant in drawn]


def test_a_sample_is_a_function_of_seed_and_source():
    assert keys(sample(ROOMS, 40, seed=1)) == keys(sample(ROOMS, 40, seed=1))
    assert keys(sample(ROOMS, 40, seed=1)) != keys(sample(ROOMS, 40, seed=2))
    edited = {**ROOMS, "large": mutants("large.py", 299)}
    assert keys(sample(edited, 40, seed=1)) != keys(sample(ROOMS, 40, seed=1))


def test_each_room_has_its_share_of_any_beginning_of_a_sample():
    drawn = sample(ROOMS, 40, seed=1)
    for number in (8, 20, 40):
        rooms = Counter(mutant.path for mutant in drawn[:number])
        assert rooms == {"large.py": number * 3 // 4, "small.py": number // 4}


def test_what_is_not_viable_gives_its_place_to_another_of_its_room():
    drawn = keys(sample(ROOMS, 40, seed=1))
    again = keys(sample(ROOMS, 40, seed=1, unviable={drawn[0]}))
    assert len(again) == 40
    assert len(set(again) - set(drawn)) == 1
    assert drawn[0] not in again
    assert drawn[0].split(".")[0] == (set(again) - set(drawn)).pop().split(".")[0]


def test_a_sample_larger_than_everything_is_everything():
    assert len(sample(ROOMS, 1000, seed=1)) == 400
