import random
from collections import Counter

from synth_assets.stages.generation.occurrences import Occurrences


def test_counts_are_those_of_a_counter_whatever_the_chunks() -> None:
    draw = random.Random(7)
    keys = [draw.choice((draw.randrange(50), draw.randrange(2**64), 2**64 - 1, 0)) for _ in range(5_000)]
    seen: Counter[int] = Counter()
    expected = []
    for key in keys:
        expected.append(seen[key])
        seen[key] += 1
    occurrences, actual, at = Occurrences(), [], 0
    while at < len(keys):
        size = draw.randrange(1, 400)
        actual += occurrences.before(keys[at : at + size])
        at += size
    assert actual == expected
