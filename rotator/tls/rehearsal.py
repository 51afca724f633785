"""A TLS handshake in memory between a pair and a client, before the pair goes anywhere near nginx."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from rotator.core.model import Pair
from rotator.tls.handshake import is_ip, ssl_words
from rotator.x509.panics import contained


def rehearse(pair: Pair, name: str) -> str:
    """A handshake in memory between this pair and a client: what no parser finds, the handshake does.

    Args:
        pair: with its key.
        name: the name that the client asks for.

    Returns:
        Why it failed, in words without a byte of the key; empty if the client got the whole chain.
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
        return f"OpenSSL does not take the pair: {ssl_words(e)}"
    server, client = SSL.Connection(server_context), SSL.Connection(_strict())
    server.set_accept_state()
    client.set_connect_state()
    if not is_ip(name):
        client.set_tlsext_host_name(name.encode("ascii"))
    try:
        for _ in range(10):
            done = [_step(client), _step(server)]
            _carry(client, server)
            _carry(server, client)
            if all(done):
                break
        else:
            return "the handshake did not come to an end"
    except SSL.Error as e:
        return f"the handshake failed: {ssl_words(e)}"
    sent = tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, c) for c in client.get_peer_cert_chain() or [])
    return "" if sent == pair.chain else "the client got another chain than the one that was to be sent"


@cache
def _strict() -> SSL.Context:
    """OpenSSL's defaults of today, as a current client has them; trust is judged elsewhere."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _step(connection: SSL.Connection) -> bool:
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _carry(source: SSL.Connection, sink: SSL.Connection) -> None:
    while True:
        try:
            sink.bio_write(source.bio_read(64 * 1024))
        except SSL.WantReadError:
            return
