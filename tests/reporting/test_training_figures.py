import pytest

from synth_assets.reporting.figures import MAX_THUMBNAIL_BYTES, thumbnail
from synth_assets.reporting.training_figures import (
    Training,
    dpo_training_curves,
    sft_training_curves,
    training_curves,
    training_of,
)

PHASES = [
    {"number": 1, "name": "exploration", "strategy": "linear", "first_step": 1, "last_step": 20},
    {"number": 2, "name": "exploitation", "strategy": "cosine", "first_step": 21, "last_step": 80},
    {"number": 3, "name": "refinement", "strategy": "exponential", "first_step": 81, "last_step": 100},
]


def curve(steps: int, **more: float) -> list[dict[str, float]]:
    return [{"step": float(n), "loss": 2.0 / n, "learning_rate": 1e-4, **more} for n in range(1, steps + 1)]


def test_loss_validation_and_kept_weights_are_drawn() -> None:
    points = [*reversed(curve(3)), {"step": 3.0, "eval_loss": 0.9}]  # a resumed curve need not be in order
    loss, rate = sft_training_curves([Training("lora_adapter", points, best_step=3)]).axes
    each, validation, kept = loss.lines
    assert each.get_xydata().tolist() == [[1, 2.0], [2, 1.0], [3, 2 / 3]]
    assert validation.get_xydata().tolist() == [[3, 0.9]]
    assert list(kept.get_xdata()) == [3, 3]
    assert (loss.get_title(), loss.get_ylim()[0], rate.get_ylim()[0]) == ("LoRA", 0, 0)
    assert rate.get_ylabel() == "learning rate"


def test_long_curve_is_smoothed() -> None:
    points = [{"step": float(n), "loss": float(n)} for n in range(1, 61)]  # windows of 3
    (loss,) = sft_training_curves([Training("lora_adapter", points)]).axes
    _, mean = loss.lines
    assert list(mean.get_ydata())[:5] == [1.0, 1.5, 2.0, 3.0, 4.0]


def test_phases_are_labelled_and_every_other_one_is_shaded() -> None:
    loss, rate = sft_training_curves([Training("lora_adapter", curve(100), PHASES)]).axes
    assert [text.get_text() for text in rate.texts] == ["exploration", "exploitation", "refinement"]
    shaded = [(area.get_x(), area.get_x() + area.get_width()) for area in loss.patches]
    assert shaded == [(0.5, 20.5), (80.5, 100.5)]


def test_reduced_rate_is_drawn_below_its_plan() -> None:
    points = [
        {"step": 1.0, "learning_rate": 4.0, "rate_scale": 1.0},
        {"step": 2.0, "learning_rate": 2.0, "rate_scale": 0.5},
    ]
    (rate,) = sft_training_curves([Training("lora_adapter", points)]).axes
    taken, plan = (list(line.get_ydata()) for line in rate.lines)
    assert (taken, plan) == ([4.0, 2.0], [4.0, 4.0])


def test_a_training_that_stopped_early_ends_before_its_plan() -> None:
    outcome = {"curve": curve(60), "phases": PHASES, "best_step": 40, "events": ["stopped at step 60 of 100: patience"]}
    loss, _ = sft_training_curves([training_of("lora_adapter", outcome)]).axes
    assert loss.get_title() == "LoRA, stopped at step 60"
    assert loss.get_xlim() == (0, 100.5)


def test_preference_curves_draw_logged_margin_and_accuracy() -> None:
    full = Training("dpo_adapter", curve(3, reward_margin=4.0, reward_accuracy=0.9))
    bare = Training("dpo_control_adapter", curve(3))
    titles = [panel.get_ylabel() for panel in dpo_training_curves([full]).axes]
    assert titles == ["loss", "reward margin", "reward accuracy", "learning rate"]
    both = dpo_training_curves([full, bare]).axes
    assert [panel.get_title() for panel in both] == ["DPO", "DPO control"] + ["DPO"] * 2 + ["DPO", "DPO control"]
    assert [panel.get_ylabel() for panel in dpo_training_curves([bare]).axes] == ["loss", "learning rate"]
    assert [panel.get_title() for panel in dpo_training_curves([full, bare], columns=1).axes] == ["DPO"] * 4 + [
        "DPO control"
    ] * 2


def test_margins_share_a_scale() -> None:
    strong = Training("dpo_adapter", curve(3, reward_margin=9.0))
    weak = Training("dpo_control_adapter", curve(3, reward_margin=1.0))
    margins = [panel for panel in dpo_training_curves([strong, weak]).axes if panel.get_ylabel() == "reward margin"]
    assert margins[0].get_ylim() == margins[1].get_ylim() == pytest.approx((-0.45, 9.45))


def test_more_trainings_than_columns_add_rows() -> None:
    five = [Training(f"round_{n}", curve(2)) for n in range(5)]
    panels = sft_training_curves(five).axes
    assert len(panels) == 10
    assert [panel.get_title() for panel in panels[:3]] == ["round 0", "round 1", "round 2"]


def test_training_without_curve_is_skipped() -> None:
    old = training_of("lora_adapter", {"final_loss": 1.0})
    assert training_curves("supervised", [old]) is None
    assert training_curves("preference", [training_of("dpo_adapter", {"curve": [{"step": 1.0}]})]) is None
    with pytest.raises(ValueError, match="no logged steps of lora_adapter"):
        sft_training_curves([old])
    with pytest.raises(ValueError, match="no logged steps of any training"):
        dpo_training_curves([])


def test_figure_name_and_size() -> None:
    points = curve(2_000, reward_margin=1.0, reward_accuracy=0.5)
    for curves, name in (("preference", "dpo_training_curves"), ("supervised", "sft_training_curves")):
        found = training_curves(curves, [Training("an_adapter", points, PHASES)])
        assert found is not None
        assert found[0] == name
        assert len(thumbnail(found[1])) < MAX_THUMBNAIL_BYTES
