"""What the process that steps are forked from loads first: silence, before the libraries that speak are imported.

Imported for its effect, as the first module that the executor preloads; see synth_assets/jobs.py.
"""

import logging

TALKATIVE = ("alembic", "bitsandbytes", "mlflow", "transformers")

for _name in TALKATIVE:
    logging.getLogger(_name).setLevel(logging.ERROR)
