"""Jobs, schedules, sensors and the executor. Only `definitions` and `cli` import this package."""
