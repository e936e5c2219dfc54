"""Allocation alternated with retraining."""
