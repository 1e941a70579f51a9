"""The project beside its alternatives: `make bench`, or `python -m benchmarks.run NAME`."""
