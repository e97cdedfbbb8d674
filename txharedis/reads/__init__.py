"""Reads that replicas may answer: who is fit, how far behind, and with whose writes."""
