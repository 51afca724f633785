"""A stand-alone program that writes the roots of Mozilla's PKCS#11 module in the syntax of certdata.txt.

    python -I -S nss_dump.py /usr/lib/x86_64-linux-gnu/libnssckbi.so

`rotator.sources.nss_module` runs it in a process of its own, because the module is a program that runs in the process
which loads it. It imports the standard library only. The constants are those of PKCS#11 2.40 and of NSS's pkcs11n.h.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator

MAX_SECONDS = 5
"""The most seconds of processor; 0.1 are usual."""

MAX_MEMORY = 1 << 29
"""The most bytes of address space."""

NOBODY = 65534
"""The user that the program becomes if root starts it."""

MAX_OBJECTS = 5_000
MAX_VALUE = 64 * 1024

_FUNCTIONS = re.findall(
    r"C_\w+",
    """C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo C_GetMechanismList
    C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo
    C_GetOperationState C_SetOperationState C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject
    C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects""",
)
"""The first functions of CK_FUNCTION_LIST, in its order."""

_NSS = 0xCE534350
_SERIAL_SESSION = 4
_CLASSES = {1: "CKO_CERTIFICATE", _NSS + 3: "CKO_NSS_TRUST", 11: "CKO_TRUST"}
_OCTETS = {
    0x11: "CKA_VALUE",
    0x81: "CKA_ISSUER",
    0x82: "CKA_SERIAL_NUMBER",
    _NSS + 0x2064: "CKA_CERT_SHA1_HASH",
    _NSS + 35: "CKA_NSS_SERVER_DISTRUST_AFTER",
}
_TRUST = {_NSS + 0x2008: "CKA_TRUST_SERVER_AUTH", 0x62C: "CKA_PKCS_TRUST_SERVER_AUTH"}
_ANCHOR = {_NSS + 2: "CKT_NSS_TRUSTED_DELEGATOR", 2: "CKT_TRUST_ANCHOR"}
_CLASS = 0


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte))


class _FunctionList(ctypes.Structure):
    _fields_ = (("version", _Version), *((name, ctypes.c_void_p) for name in _FUNCTIONS))


class _Attribute(ctypes.Structure):
    _fields_ = (("type", ctypes.c_ulong), ("value", ctypes.c_void_p), ("length", ctypes.c_ulong))


class ModuleError(Exception):
    """The module has refused a call."""


class Module:
    """A loaded PKCS#11 module with one open session.

    Args:
        path: the shared library.
    """

    def __init__(self, path: str) -> None:
        found = ctypes.POINTER(_FunctionList)()
        library = ctypes.CDLL(path)
        if library.C_GetFunctionList(ctypes.byref(found)):
            raise ModuleError("C_GetFunctionList")
        self._functions = found.contents
        self._call("C_Initialize", None)
        slots, count = (ctypes.c_ulong * 16)(), ctypes.c_ulong(16)
        self._call("C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
        if not count.value:
            raise ModuleError("C_GetSlotList")
        self._session = ctypes.c_ulong()
        flags = ctypes.c_ulong(_SERIAL_SESSION)
        self._call("C_OpenSession", ctypes.c_ulong(slots[0]), flags, None, None, ctypes.byref(self._session))

    def objects(self) -> Iterator[int]:
        """The handles of all objects."""
        self._call("C_FindObjectsInit", self._session, None, ctypes.c_ulong(0))
        handle, count = ctypes.c_ulong(), ctypes.c_ulong()
        for _ in range(MAX_OBJECTS):
            arguments = (self._session, ctypes.byref(handle), ctypes.c_ulong(1), ctypes.byref(count))
            self._call("C_FindObjects", *arguments)
            if not count.value:
                return
            yield handle.value
        raise ModuleError("C_FindObjects")

    def value(self, handle: int, kind: int) -> bytes:
        """The value of an attribute; empty if the object has none, or a longer one than is read."""
        buffer = ctypes.create_string_buffer(MAX_VALUE)
        attribute = _Attribute(kind, ctypes.cast(buffer, ctypes.c_void_p), MAX_VALUE)
        arguments = (self._session, ctypes.c_ulong(handle), ctypes.byref(attribute), ctypes.c_ulong(1))
        failed = self._function("C_GetAttributeValue")(*arguments)
        return b"" if failed or attribute.length > MAX_VALUE else buffer.raw[: attribute.length]

    def _call(self, name: str, *arguments: object) -> None:
        if self._function(name)(*arguments):
            raise ModuleError(name)

    def _function(self, name: str) -> ctypes._CFunctionType:
        return ctypes.CFUNCTYPE(ctypes.c_ulong)(getattr(self._functions, name))


def lines_of(module: Module) -> Iterator[str]:
    """The certificates and their trust, line by line."""
    yield "BEGINDATA"
    for handle in module.objects():
        kind = _CLASSES.get(_number(module.value(handle, _CLASS)))
        if kind is None:
            continue
        yield f"CKA_CLASS CK_OBJECT_CLASS {kind}"
        for attribute, name in _OCTETS.items():
            value = module.value(handle, attribute)
            if len(value) > 1:  # one octet is CK_FALSE: no date
                yield f"{name} MULTILINE_OCTAL"
                yield from (
                    "".join(f"\\{octet:03o}" for octet in value[at : at + 16]) for at in range(0, len(value), 16)
                )
                yield "END"
        for attribute, name in _TRUST.items():
            if value := module.value(handle, attribute):
                yield f"{name} CK_TRUST {_ANCHOR.get(_number(value), 'CKT_NSS_MUST_VERIFY_TRUST')}"


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder) if len(value) == ctypes.sizeof(ctypes.c_ulong) else -1


def main() -> None:
    """Writes the roots of the module that the first argument names."""
    for limit, most in (
        (resource.RLIMIT_CPU, MAX_SECONDS),
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    sys.stdout.write("\n".join(lines_of(Module(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    main()
