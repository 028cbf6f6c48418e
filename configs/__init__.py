"""The YAML files that Hydra composes; see docs/configuration.md."""
