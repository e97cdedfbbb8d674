"""The version of the package; setup.py reads the line below without importing anything."""

__version__ = "0.1.0"
