import pytest

from synth_assets.text_samples import escaped_sample


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("![x](http://example.org/pixel.png)", "!["),
        ("[click](http://example.org)", "k]("),
        ("\x1b[31mred\x1b[0m", "\x1b"),
        ("nul \0 byte", "\0"),
        ("`code`", "- text: `"),
        ("one\n# heading", "\n#"),
        ("right \u202e to left", "\u202e"),
        ("lone \ud800 surrogate", "\ud800"),
    ],
)
def test_text_cannot_act(text: str, forbidden: str) -> None:  # fault 12
    sample = escaped_sample([{"text": text}])
    assert forbidden not in sample
    sample.encode()


def test_plain_words_are_shown_as_they_are() -> None:
    assert escaped_sample([{"asked": "Größe, in cm?", "said": "12"}]) == "- asked: Größe, in cm?\n- said: 12"


def test_html_is_shown_as_text_and_control_characters_as_code_points() -> None:
    assert escaped_sample([{"a": "<b>\x1b"}]) == "- a: &lt;b&gt;&lt;U+001B&gt;"


@pytest.mark.parametrize("text", ["x" * 10_000_000, "<" * 10_000_000, "\x1b" * 10_000, "字" * 10_000])
def test_ten_megabytes_stay_under_four_kilobytes(text: str) -> None:  # fault 12
    sample = escaped_sample([{"a": text, "b": "end"}] * 50)
    assert 0 < len(sample.encode()) < 4_000
    assert "- b: end" in sample


def test_rows_that_do_not_fit_are_left_out_whole() -> None:
    assert escaped_sample([{"a": "12345"}, {"a": "12345"}], limit_bytes=15) == "- a: 12345"
    assert escaped_sample([]) == ""
