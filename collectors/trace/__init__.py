"""Discrete events, one file for each: what the agent publishes as they happen and ``gadget trace`` shows live."""
