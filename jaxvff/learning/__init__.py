"""From segments to better parameters."""
