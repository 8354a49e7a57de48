"""The known workload, and the check that what was measured agrees with it."""
