"""The contract (``streams.schema``) and the stream processors."""
