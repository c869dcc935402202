"""The engine that judges rows with models: its models, cache, runs and store."""
