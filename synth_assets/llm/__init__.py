"""Language models: catalog, checks of model folders, loading, chat templates and generators. No Dagster, no assets."""
