"""All benches of `bench/` one after another, and one table of the figures that docs name: `make bench`."""
