"""Playing episodes, on the device and on the host."""
