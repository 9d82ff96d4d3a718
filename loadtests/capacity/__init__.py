"""How many streams Sluice carries, measured, and what follows from it: `python -m loadtests.capacity`."""
