"""What Sluice costs per token, measured on this machine: `python -m loadtests.bench`. See README.md."""
