"""A score model of vorticity: what 15 steps of DPM-Solver++(3M) draw, beside 200 steps and unseen data."""
