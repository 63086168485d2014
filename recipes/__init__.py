"""All numbers of a run: the fields of each job's recipe, what they mean, and the recipes themselves (*.toml)."""
