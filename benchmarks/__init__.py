"""One script per claim of cost; run as `python -m benchmarks.NAME`."""
