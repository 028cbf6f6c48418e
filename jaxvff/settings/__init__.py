"""From key=value to a Config, and from a Config to parts."""
