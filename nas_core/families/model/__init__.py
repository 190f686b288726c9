"""Families whose networks are a trained model with some of its modules exchanged."""
