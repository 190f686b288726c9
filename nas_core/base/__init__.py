"""What knows nothing of networks: errors, ids, registries, sections of a configuration, units."""
