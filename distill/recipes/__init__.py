"""Recipes: TOML files of settings beside this one."""
