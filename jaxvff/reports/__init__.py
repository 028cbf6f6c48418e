"""Results for people and for other tools: terminal tables, plots, GIFs and JSON files."""
