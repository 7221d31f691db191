"""Gymnasium environments for adaptive mesh refinement."""
