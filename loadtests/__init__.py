"""Measures what Sluice carries and what it costs. No part of the app."""
