"""What kubectl would apply, looked at without a cluster."""
