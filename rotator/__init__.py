"""rotator: puts renewed certificates into nginx and proves that they are served, or puts the old ones back.

This module holds the version and nothing else: importing the package must cost nothing.
"""

__version__ = "0.1.0"
