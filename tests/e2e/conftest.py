"""The fixtures of a real nginx and a CA of today, for the end-to-end tests."""

from __future__ import annotations

from tests.support.nginx_fixtures import issuing_ca, nginx, nginx_binary, root_ca, root_pem

__all__ = ["issuing_ca", "nginx", "nginx_binary", "root_ca", "root_pem"]
