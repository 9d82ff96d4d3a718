"""The same measurement of Sluice and of others, in one run: `python -m loadtests.compare`. See ../README.md."""
