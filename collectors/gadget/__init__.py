"""Gadgets: the collectors run on this machine for the terminal, without Kafka."""
