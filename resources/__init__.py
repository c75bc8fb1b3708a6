"""Where an asset meets the machine: hardware, models, storage and tracking."""
