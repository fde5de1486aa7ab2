"""Which version of the distribution is this? For the package, for its build, and for whoever asks a node."""

__version__ = "0.1.0"
