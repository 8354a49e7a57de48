"""The measured figures of perfstream: ``make bench`` prints one JSON line each."""
