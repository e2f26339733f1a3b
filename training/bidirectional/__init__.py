"""History read from both ends: fills its gaps and labels it. Offline only, for it waits for samples yet to come."""
