"""One profile for all properties: no deadline, because a busy machine is slow, and the same examples in each run."""

from hypothesis import settings

settings.register_profile("project", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("project")
