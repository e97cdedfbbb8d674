"""The user's channels: one node that has them, and that nothing is lost unnoticed."""
