"""The whole pipeline as processes of this machine: what they are, keeping them running, showing how they are."""
