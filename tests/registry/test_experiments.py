"""The experiments in MLflow open on their runs and say what they hold."""

from pathlib import Path

import pytest

from resources.tracking import EXPERIMENT
from synth_assets.registry.experiments import DESCRIPTION, KIND, ensure_experiment
from tests.support.tracking import tracking_of

pytestmark = pytest.mark.integration


def test_experiments_have_a_kind_and_a_description(tmp_path: Path) -> None:
    tracking = tracking_of(tmp_path)
    experiment_id = tracking.initialise()
    client = tracking.client()()
    tags = client.get_experiment(experiment_id).tags
    assert tags[KIND] == "custom_model_development"
    assert "one run per adapter" in tags[DESCRIPTION]
    assert tracking.pages("http://ui") == {
        "runs": f"http://ui/#/experiments/{experiment_id}/runs",
        "models": "http://ui/#/models/synth-instruct",
    }

    client.set_experiment_tag(experiment_id, DESCRIPTION, "our own words")
    client.delete_experiment_tag(experiment_id, KIND)  # as in a home of an earlier version
    assert tracking.initialise() == experiment_id
    tags = client.get_experiment(experiment_id).tags
    assert (tags[KIND], tags[DESCRIPTION]) == ("custom_model_development", "our own words")


def test_an_experiment_is_created_where_the_server_decides(tmp_path: Path) -> None:
    tracking = tracking_of(tmp_path)
    tracking.initialise()
    client = tracking.client()()
    created = ensure_experiment(client, "another", "what it holds")
    assert ensure_experiment(client, "another", "changed") == created
    assert client.get_experiment(created).tags[DESCRIPTION] == "what it holds"
    assert client.get_experiment_by_name(EXPERIMENT) is not None
