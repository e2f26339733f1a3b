"""What may come: trajectories from one state, one to many."""
