"""Recipes (training) and presets (students) as YAML, and the code that reads, overrides and checks them."""

from distilvl.recipes.loading import (
    apply_overrides,
    list_recipes,
    list_students,
    load_config,
    method_sections,
    save_config,
)

__all__ = ["apply_overrides", "list_recipes", "list_students", "load_config", "method_sections", "save_config"]
