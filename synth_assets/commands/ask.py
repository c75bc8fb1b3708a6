"""`synth ask`: one question to every model that exists, with the same seed."""

import logging
from collections.abc import Iterator

from resources.inference import Inference
from resources.model_turns import command_turn
from synth_assets.commands.session import Session
from synth_assets.protocols import Sampling
from synth_assets.records import ADAPTERS, BASE, CONTROLS, AdapterRecord, ChampionRecord, ModelRecord

ASKED = tuple(name for name in ADAPTERS if name not in CONTROLS)
MAX_TOKENS = 256
log = logging.getLogger(__name__)


def answers(session: Session, question: str, seed: int) -> Iterator[tuple[str, str]]:
    """(model, answer) for the base, each adapter that was trained, and a line that names the champion.

    Raises:
        ValueError: the question is empty, or nothing was materialised yet.
    """
    if not question.strip():
        raise ValueError("the question is empty")
    base = session.record("base_model", ModelRecord)
    if base is None:
        raise ValueError("no model was materialised yet: synth run")
    inference = Inference(hardware=session.hardware)
    champion = session.record("champion", ChampionRecord)
    sampling = Sampling(temperature=0.7, top_p=1.0, max_tokens=MAX_TOKENS)
    records = [None, *(session.record(name, AdapterRecord) for name in ASKED)]
    session.limit_model_steps()
    for name, record in zip((BASE, *ASKED), records, strict=True):
        if name != BASE and (record is None or record.failure):
            continue
        generator = inference.generator(base, session.home / record.path if record else None)
        with command_turn(session.instance, "synth ask", log.warning):
            prompt = generator.encode_chat([{"role": "user", "content": question}])
            completion = generator.generate([prompt], [seed], sampling)[0]
        served = champion is not None and record is not None and record.fingerprint == champion.fingerprint
        yield f"{name}{' (champion)' if served else ''}", completion.text
