"""The paper's tables and figure, re-run: cells over a base recipe, several seeds, means beside the published values."""
