"""The parts of machinery_compat.config: what the settings are, and the two places they are read from."""
