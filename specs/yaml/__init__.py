"""YAML files: from the files that are named to validated objects, every problem with its place."""
