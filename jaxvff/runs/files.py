"""The names of the files in a run folder (runs/folder.py says what they hold); light to import."""

from __future__ import annotations

CONFIG_FILE = "config.yaml"
METRICS_FILE, TIMING_FILE = "metrics.jsonl", "timing.json"
TABLE_FILE = "table.json"
