"""The rehearsal: a TLS handshake in memory between a pair and a client, before nginx gets the pair."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from rotator.core.model import Pair
from rotator.tls.handshake import is_ip, ssl_reasons
from rotator.x509.panics import contained

MAX_ROUNDS = 10
"""The most exchanges of bytes between both sides; a handshake needs two or three."""


def rehearse(pair: Pair, name: str) -> str:
    """A handshake in memory between this pair and a client, which finds faults that no parser finds.

    Args:
        pair: the pair, with its key.
        name: the server name that the client sends.

    Returns:
        The failure, without a byte of the key; empty if the client received the whole chain.
    """
    assert pair.key is not None  # noqa: S101 - a bug, not an input
    try:
        server_context = SSL.Context(SSL.TLS_SERVER_METHOD)
        with contained():
            leaf, *rest = [crypto.load_certificate(crypto.FILETYPE_ASN1, der).to_cryptography() for der in pair.chain]
            key = load_pem_private_key(pair.key.reveal(), None, unsafe_skip_rsa_key_validation=True)
        server_context.use_certificate(leaf)
        for cert in rest:
            server_context.add_extra_chain_cert(cert)
        server_context.use_privatekey(key)  # type: ignore[arg-type]  # any key kind that a leaf can have
    except (SSL.Error, ValueError, TypeError, crypto.Error) as e:
        return f"OpenSSL does not take the pair: {ssl_reasons(e)}"
    server, client = SSL.Connection(server_context), SSL.Connection(_strict())
    server.set_accept_state()
    client.set_connect_state()
    if not is_ip(name):
        client.set_tlsext_host_name(name.encode("ascii"))
    try:
        for _ in range(MAX_ROUNDS):
            completed = [_step(client), _step(server)]
            _transfer(client, server)
            _transfer(server, client)
            if all(completed):
                break
        else:
            return "the handshake did not end"
    except SSL.Error as e:
        return f"the handshake failed: {ssl_reasons(e)}"
    received = tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, c) for c in client.get_peer_cert_chain() or [])
    return "" if received == pair.chain else "the client received another chain than the pair's"


@cache
def _strict() -> SSL.Context:
    """A client with OpenSSL's present defaults; whether it trusts the chain is decided by `rotator.validation`."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _step(connection: SSL.Connection) -> bool:
    """Continues a handshake as far as the received bytes allow; whether it is complete."""
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _transfer(source: SSL.Connection, sink: SSL.Connection) -> None:
    """Moves all bytes that one side has sent to the other side."""
    while True:
        try:
            sink.bio_write(source.bio_read(64 * 1024))
        except SSL.WantReadError:
            return
