"""The flame graph page: one self-contained HTML file."""
