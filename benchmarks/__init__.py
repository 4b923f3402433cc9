"""What Darkroom costs, measured: `make bench` runs everything and writes docs/benchmarks.md."""
