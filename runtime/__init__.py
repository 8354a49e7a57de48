"""What every process needs and no stage owns: settings, logging, metrics and health."""
