"""Faults on real servers and clients while everybody writes, and what became of each write."""
