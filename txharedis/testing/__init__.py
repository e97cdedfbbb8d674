"""Real local servers and controllable links, for tests and for the demo."""
