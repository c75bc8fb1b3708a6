"""Load language models and generate text: catalog, folder checks, chat templates, generators. Does not use Dagster."""
