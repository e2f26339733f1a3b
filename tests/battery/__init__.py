"""What every network of the registry must show before anybody may use it: `make battery`."""
