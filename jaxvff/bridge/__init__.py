"""The host-side bridge: games in worker processes feed the same compiled update as the device."""
