"""The private part of pyOpenSSL that the probe uses: when an update takes it away, this file says what to do."""

from __future__ import annotations

import importlib

import pytest

ADVICE = (
    "rotator/tls/handshake.py uses it, as pyOpenSSL has no public call for signature algorithms. Either use the public "
    "call if there is one now, or pin pyOpenSSL below this version in pyproject.toml until there is another way."
)


def test_pyopenssl_still_has_the_private_binding_that_sets_signature_algorithms() -> None:
    from OpenSSL import SSL, version

    release = f"pyOpenSSL {version.__version__}"
    try:
        binding = importlib.import_module("OpenSSL._util")
    except ImportError:
        pytest.fail(f"{release} has no module OpenSSL._util any longer. {ADVICE}")
    for place, name in ((binding.lib, "SSL_CTX_set1_sigalgs_list"), (binding.ffi, "new")):
        if not hasattr(place, name):
            pytest.fail(f"{release} has no {name} in OpenSSL._util any longer. {ADVICE}")
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if not hasattr(context, "_context"):
        pytest.fail(f"{release} no longer keeps OpenSSL's own context in SSL.Context._context. {ADVICE}")
    try:
        accepted = [
            binding.lib.SSL_CTX_set1_sigalgs_list(context._context, binding.ffi.new("char[]", algorithms))
            for algorithms in (b"ECDSA+SHA256", b"no such algorithm")
        ]
    except TypeError as changed:
        pytest.fail(f"SSL_CTX_set1_sigalgs_list of {release} takes other arguments now ({changed}). {ADVICE}")
    if accepted != [1, 0]:
        pytest.fail(f"SSL_CTX_set1_sigalgs_list of {release} answers {accepted}, not 1 and 0. {ADVICE}")


def test_pyopenssl_has_no_public_call_for_signature_algorithms_yet() -> None:
    from OpenSSL import SSL

    public = [name for name in dir(SSL.Context) if "sigalg" in name.lower() or "signature" in name.lower()]
    assert public == [], f"use {public} in rotator/tls/handshake.py and drop the private binding"
