from itertools import product

from synth_assets.stages.generation.seeds import content_row_id, row_id, row_seed


def test_seeds_fit_a_signed_column_and_differ_by_each_part() -> None:
    seeds = [row_seed(run, batch, index) for run, batch, index in product((0, 42), ("a", "b"), range(500))]
    assert len(set(seeds)) == 2_000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_everywhere() -> None:
    # sha256 of '["seed", 42, "2026-W47", 0]' begins with these sixteen digits; the seed is their upper 63 bits
    assert row_seed(42, "2026-W47", 0) == 0x1B69677956DF3008 >> 1


def test_batch_and_index_do_not_run_together() -> None:
    assert row_seed(1, "a1", 2) != row_seed(1, "a", 12)


def test_row_ids_depend_on_seed_and_spec() -> None:
    ids = {row_id(seed, spec) for seed, spec in product(range(100), ("x", "y"))}
    assert len(ids) == 200
    assert all(len(one) == 16 for one in ids)


def test_imported_rows_are_named_by_source_content_and_occurrence() -> None:
    first = content_row_id("a.jsonl", ["q", "r"], 0)
    assert first == content_row_id("a.jsonl", ["q", "r"], 0)
    others = {
        content_row_id("b.jsonl", ["q", "r"], 0),
        content_row_id("a.jsonl", ["q", "s"], 0),
        content_row_id("a.jsonl", ["qr", ""], 0),
        content_row_id("a.jsonl", ["q", "r"], 1),
    }
    assert len(others | {first}) == 5
