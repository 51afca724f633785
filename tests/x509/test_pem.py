"""What the PEM reader takes and refuses, and that it says where."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.core.model import MAX_FILE, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509.pem import MAX_BLOCKS, Block, encode_chain, read_blocks
from tests.support.authority import CA, key_pem, new_key
from tests.support.cost import cost

ISSUED = CA.root().intermediate().issue("a.example.com")
LEAF, INTERMEDIATE = ISSUED.chain_der
MARK = b"\xef\xbb\xbf"
ONE = encode_chain([LEAF])
TWO = encode_chain([LEAF, INTERMEDIATE])


def read(data: bytes) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    return read_blocks(SourceFile("chain.pem", data))


def refusal(data: bytes) -> Problem:
    """The one problem of a file that has to be refused for one reason."""
    _, problems = read(data)
    assert len(problems) == 1
    assert problems[0].severity is Severity.REJECT
    assert problems[0].file == "chain.pem"
    return problems[0]


def test_blocks_come_with_their_lines() -> None:
    blocks, problems = read(TWO)
    assert problems == ()
    assert [(b.label, b.data, b.line) for b in blocks] == [
        ("CERTIFICATE", LEAF, 1),
        ("CERTIFICATE", INTERMEDIATE, ONE.count(b"\n") + 1),
    ]


def test_crlf_comments_and_bag_attributes_between_blocks_are_normal() -> None:
    text = b"Bag Attributes\n    friendlyName: m\xc3\xbcller\nsubject=CN = x\n\n" + ONE + b"\n# the CA:\n" + ONE
    blocks, problems = read(text.replace(b"\n", b"\r\n"))
    assert problems == ()
    assert [b.data for b in blocks] == [LEAF, LEAF]
    assert blocks[0].line == 5


def test_a_missing_line_end_at_the_end_of_the_file_is_normal() -> None:
    assert read(ONE.rstrip(b"\n")) == read(ONE)


def test_spaces_at_the_end_of_a_line_are_passed_over_as_openssl_does() -> None:
    blocks, problems = read(ONE.replace(b"\n", b" \t\n"))
    assert problems == ()
    assert blocks[0].data == LEAF


def test_base64_in_one_long_line_is_read() -> None:
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(LEAF) + b"\n-----END CERTIFICATE-----\n"
    assert read(text)[0][0].data == LEAF


def test_the_old_label_of_a_certificate_is_read() -> None:
    assert read(ONE.replace(b" CERT", b" X509 CERT"))[0][0].data == LEAF


@pytest.mark.parametrize("label", ["EC PARAMETERS", "DH PARAMETERS", "CERTIFICATE REQUEST", "X509 CRL", "PUBLIC KEY"])
def test_blocks_that_nginx_passes_over_are_passed_over(label: str) -> None:
    other = b"-----BEGIN %b-----\nBggqhkjOPQMBBw==\n-----END %b-----\n" % (label.encode(), label.encode())
    blocks, problems = read(other + ONE)
    assert problems == ()
    assert [b.data for b in blocks] == [LEAF]


def test_a_half_written_second_block_is_refused_with_its_line() -> None:
    problem = refusal(TWO[: len(ONE) + 200])
    assert problem.code == Code.PARSE_ERROR
    assert problem.line == ONE.count(b"\n") + 1


def test_a_begin_line_that_is_cut_off_is_refused() -> None:
    problem = refusal(TWO[: len(ONE) + 15])
    assert problem.code == Code.PARSE_ERROR
    assert problem.line == ONE.count(b"\n") + 1


def test_a_block_that_begins_inside_another_is_refused_with_both_lines() -> None:
    problem = refusal(ONE[:400].rsplit(b"\n", 1)[0] + b"\n" + ONE)
    assert "block of line 1" in problem.message
    assert problem.line == ONE[:400].count(b"\n") + 1


def test_line_ends_of_carriage_returns_alone_are_refused() -> None:
    assert "carriage return" in refusal(ONE.replace(b"\n", b"\r")).message


def test_end_and_begin_glued_into_one_line_are_refused() -> None:
    problem = refusal(ONE.rstrip(b"\n") + ONE)
    assert "one line" in problem.message
    assert problem.line == ONE.count(b"\n")


def test_an_indented_block_is_refused_rather_than_passed_over() -> None:
    problem = refusal(ONE + b"".join(b"  " + line for line in ONE.splitlines(keepends=True)))
    assert "indented" in problem.message
    assert problem.line == ONE.count(b"\n") + 1


def test_an_indented_line_inside_a_block_is_refused() -> None:
    lines = ONE.splitlines(keepends=True)
    assert refusal(b"".join([*lines[:3], b" " + lines[3], *lines[4:]])).line == 4


def test_an_empty_line_inside_a_block_is_refused() -> None:
    lines = ONE.splitlines(keepends=True)
    assert refusal(b"".join([*lines[:3], b"\n", *lines[3:]])).line == 4


def test_the_wrong_end_label_is_refused() -> None:
    problem = refusal(ONE.replace(b"END CERTIFICATE", b"END PRIVATE KEY"))
    assert "closes the CERTIFICATE block" in problem.message


@pytest.mark.parametrize("bad", [b"!!!!", b"AB=A", b"====", "ü".encode()])
def test_what_is_not_base64_is_refused_with_its_line(bad: bytes) -> None:
    lines = ONE.splitlines(keepends=True)
    assert refusal(b"".join([*lines[:2], bad + b"\n", *lines[2:]])).line in (1, 3, 4)


@pytest.mark.parametrize("text", [b"QUJD=", b"QUJD==", b"QUJDQQ=", b"QUJDQ", b"QUJDQ===", b"QQ==QUJD"])
def test_padding_that_openssl_does_not_take_is_refused(text: bytes) -> None:
    assert refusal(b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----\n" % text).line in (1, 2)


def test_a_block_without_content_is_refused() -> None:
    assert refusal(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n").line == 1


@pytest.mark.parametrize("marker", [b"----- BEGIN CERTIFICATE -----", b"-----BEGIN CERTIFICATE----", b"-----"])
def test_a_misspelt_marker_is_refused_rather_than_taken_for_a_comment(marker: bytes) -> None:
    assert refusal(marker + b"\n" + ONE).code == Code.PARSE_ERROR


def test_a_nul_byte_is_an_encoding_problem_with_its_line() -> None:
    problem = refusal(ONE + b"\nxx\0\n")
    assert (problem.code, problem.line) == (Code.ENCODING, ONE.count(b"\n") + 2)


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_an_encoding_problem(codec: str) -> None:
    assert refusal(ONE.decode().encode(codec)).code == Code.ENCODING


def test_a_zip_archive_is_told_for_what_it_is() -> None:
    problem = refusal(b"PK\x03\x04\x14\0" + ONE)
    assert (problem.code, "is a zip archive" in problem.message, "unzip" in problem.hint) == (
        Code.PARSE_ERROR,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("before", "line", "hides"), [(b"", 1, True), (b"# chain\n", 2, False), (b"\n", 2, False)], ids=repr
)
def test_a_byte_order_mark_at_the_front_warns_and_tells_where_it_hides_a_block(
    before: bytes, line: int, hides: bool
) -> None:
    blocks, (problem,) = read(MARK + before + ONE)
    assert (problem.code, problem.severity, problem.line) == (Code.ENCODING, Severity.WARN, 1)
    assert ("OpenSSL before 3.0" in problem.message) is hides
    assert "sed -i '1s/" in problem.hint
    assert (blocks[0].data, blocks[0].line) == (LEAF, line)


@pytest.mark.parametrize("text", [MARK + MARK + ONE, b" " + MARK + ONE, b"# chain\n" + MARK + ONE])
def test_a_byte_order_mark_where_openssl_does_not_skip_it_is_refused(text: bytes) -> None:
    assert {p.code for p in read(text)[1] if p.severity is Severity.REJECT} <= {Code.ENCODING, Code.PARSE_ERROR}
    assert read(text)[0] == ()


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("OPENSSH PRIVATE KEY", Code.KEY_FORMAT),
        ("DSA PRIVATE KEY", Code.KEY_TYPE),
        ("PGP MESSAGE", Code.PARSE_ERROR),
    ],
)
def test_blocks_of_other_kinds_are_refused_by_name(label: str, code: Code) -> None:
    problem = refusal(ONE.replace(b"CERTIFICATE", label.encode()))
    assert (problem.code, problem.line) == (code, 1)
    assert problem.hint


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (LEAF, "CERTIFICATE"),
        (b"0\x07\x02\x01\x00" + b"0\x02\x05\x00", "PRIVATE KEY"),
        (b"0\x06\x02\x01\x00\x02\x01\x01", "RSA PRIVATE KEY"),
        (b"0\x05\x02\x01\x01\x04\x00", "EC PRIVATE KEY"),
        (b"0\x04" + b"0\x00\x04\x00", "ENCRYPTED PRIVATE KEY"),
        (b"0\x05\x02\x01\x03" + b"0\x00", "PKCS12"),
        (b"0\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x00", "PKCS7"),
    ],
)
def test_a_binary_file_is_one_block_without_a_line(data: bytes, label: str) -> None:
    assert read(data) == ((Block(label, data, "chain.pem", 0),), ())


def test_a_binary_file_that_is_cut_off_is_refused_as_that() -> None:
    assert "binary file that is cut off" in refusal(LEAF[:-1]).message


@pytest.mark.parametrize("label", ["PKCS7", "CMS", "PKCS #7 SIGNED DATA"])
def test_every_label_of_a_pkcs7_block_is_read(label: str) -> None:
    blocks, problems = read(ONE.replace(b"CERTIFICATE", label.encode()))
    assert problems == ()
    assert [b.label for b in blocks] == ["PKCS7"]


def test_a_trusted_certificate_is_read_where_nginx_reads_it() -> None:
    blocks, problems = read(ONE.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE") + ONE)
    assert problems == ()
    assert [b.label for b in blocks] == ["CERTIFICATE", "CERTIFICATE"]


def test_a_trusted_certificate_is_refused_where_nginx_passes_over_it() -> None:
    problem = refusal(ONE + ONE.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"))
    assert (problem.code, problem.line) == (Code.PARSE_ERROR, ONE.count(b"\n") + 1)
    assert "openssl x509" in problem.hint


def test_a_byte_order_mark_right_after_a_block_warns_with_its_line() -> None:
    """As where two files of Windows were joined: OpenSSL skips it there as well."""
    blocks, (problem,) = read(ONE + MARK + ONE)
    assert [block.data for block in blocks] == [LEAF, LEAF]
    line = ONE.count(b"\n") + 1
    assert (problem.code, problem.severity, problem.line) == (Code.ENCODING, Severity.WARN, line)
    assert f"sed -i '{line}s/" in problem.hint


@pytest.mark.parametrize("between", [b"\n", b"# next\n"])
def test_a_byte_order_mark_before_a_later_block_but_not_right_after_one_is_refused(between: bytes) -> None:
    problem = refusal(ONE + between + MARK + ONE)
    assert (problem.code, problem.line) == (Code.ENCODING, ONE.count(b"\n") + 2)
    assert "sed -i" in problem.hint


@pytest.mark.parametrize("data", [b"", b" \r\n\t\n"])
def test_a_file_without_content_is_empty(data: bytes) -> None:
    assert refusal(data).code == Code.EMPTY_FILE


def test_a_file_above_the_bound_is_not_read() -> None:
    assert refusal(ONE + b"\n" * MAX_FILE).code == Code.TOO_LARGE


def test_a_file_full_of_lines_is_answered_at_once() -> None:
    lines = b"\n" * (MAX_FILE - 1) + b"x"
    block = b"-----BEGIN CERTIFICATE-----\n" + b"Q\n" * (MAX_FILE // 2 - 20)
    _, seconds = cost(lambda: (read(lines), read(block)), below=0.2)
    assert seconds < 0.2


def test_a_text_without_blocks_has_none_and_no_problem() -> None:
    assert read(b"hello\n") == ((), ())


@pytest.mark.parametrize("label", ["CERTIFICATE", "SOMETHING", "PKCS7", "PRIVATE KEY"])
def test_a_file_of_thousands_of_blocks_is_refused_without_looking_at_all_of_them(label: str) -> None:
    block = f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n".encode()
    blocks, problems = read(block * (MAX_FILE // len(block)))
    assert len(blocks) + len(problems) <= MAX_BLOCKS + 2
    assert problems[-1].code == Code.TOO_LARGE
    assert problems[-1].line == 3 * (MAX_BLOCKS + 1) + 1


def test_a_certificate_under_a_header_is_refused_because_nginx_does_not_read_it() -> None:
    problem = refusal(ONE.replace(b"-----\n", b"-----\nX-Note: hello\n\n", 1))
    assert problem.code == Code.PARSE_ERROR
    assert problem.line == 1


def test_the_headers_of_an_old_encrypted_key_are_kept() -> None:
    text = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nQUJD\n"
    blocks, problems = read(text + b"-----END RSA PRIVATE KEY-----\n")
    assert problems == ()
    assert blocks[0].headers == ("Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,00")


def test_a_block_never_shows_its_content() -> None:
    secret = key_pem(new_key())
    blocks, _ = read(secret)
    assert repr(blocks[0].data) not in repr(blocks)
    assert base64.b64encode(blocks[0].data)[:20].decode() not in repr(blocks)


def test_a_chain_is_written_in_canonical_form() -> None:
    text = encode_chain([LEAF, INTERMEDIATE])
    assert text == ISSUED.chain_pem
    assert max(map(len, text.splitlines())) <= 64


@pytest.mark.parametrize(
    ("text", "seen"), [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\udc80", "\\udc80"), ("é", "é")]
)
def test_text_from_outside_cannot_move_the_cursor_or_break_the_line(text: str, seen: str) -> None:
    assert shown(text) == seen


@given(st.binary(max_size=400))
def test_random_bytes_give_blocks_or_problems_and_never_raise(data: bytes) -> None:
    blocks, problems = read(data)
    assert not blocks
    assert all(p.file == "chain.pem" for p in problems)


MARKERS = [b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"]
PIECES = [*MARKERS, b"\n", b"\r", b" ", b"QUJD", b"=", b"-", b":", b"\0"]


@given(st.lists(st.sampled_from(PIECES), max_size=30))
@settings(max_examples=300)
def test_any_mixture_of_the_grammar_gives_blocks_or_problems_and_never_raises(pieces: list[bytes]) -> None:
    blocks, problems = read(b"".join(pieces))
    assert all(set(b.data) <= set(b"ABC") for b in blocks)
    assert all(p.line >= 0 for p in problems)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_what_is_written_reads_back_the_same(chain: list[bytes]) -> None:
    blocks, _ = read(b"# chain\n" + encode_chain(chain))
    assert [b.data for b in blocks] == chain


@given(st.integers(min_value=1, max_value=len(TWO) - 1))
def test_a_file_cut_off_anywhere_never_yields_another_block(at: int) -> None:
    blocks, problems = read(TWO[:at])
    assert [b.data for b in blocks] == [LEAF, INTERMEDIATE][: len(blocks)]
    if not problems:  # nothing but whole blocks is left
        assert TWO[:at].rstrip() in (ONE.rstrip(), TWO.rstrip())
