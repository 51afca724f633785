"""rotator: puts renewed certificates into nginx and proves that they are served, or puts the old ones back.

This module has only the version, so that the import of the package takes almost no time.
"""

__version__ = "0.1.0"
