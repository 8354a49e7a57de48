"""One file for each profile source that is asked over the network."""
