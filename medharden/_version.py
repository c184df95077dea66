"""The version, apart from the package's face, so that no import runs back up to it."""

__all__ = ["__version__"]

__version__ = "0.1.0"
