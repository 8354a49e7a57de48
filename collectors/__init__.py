"""Node side: one file for each thing measured, one publisher."""
