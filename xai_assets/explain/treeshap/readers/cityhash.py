"""How CatBoost turns the text of a category into the number that its models store.

Belongs here: CityHash64 in its version 1.0, for texts of up to 64 bytes. Does not belong here: anything else.

Geoff Pike and Jyrki Alakuijala, "Introducing CityHash", 2011. Checked in the tests against what CatBoost exports.
"""

MAX_BYTES = 64
_64 = 2**64 - 1
_K0, _K1, _K2, _K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
_MULTIPLIER = 0x9DDFEA08EB382D69


def category_hash(text: str) -> int | None:
    """The lower 32 bits of the hash of a category's text; None where the text is longer than 64 bytes.

    >>> category_hash("0")  # as CatBoost 1.2 exports it
    2856682258
    """
    s = text.encode()
    n = len(s)
    if n > MAX_BYTES:
        return None
    if n <= 16:
        return _to_16(s, n) & 0xFFFFFFFF
    return (_to_32(s, n) if n <= 32 else _to_64(s, n)) & 0xFFFFFFFF


def _to_16(s: bytes, n: int) -> int:
    if n > 8:
        a, b = _word(s, 0), _word(s, n - 8)
        return _pair(a, _turned(b + n, n)) ^ b
    if n >= 4:
        return _pair(n + (_word(s, 0, 4) << 3), _word(s, n - 4, 4))
    if n == 0:
        return _K2
    y, z = s[0] + (s[n >> 1] << 8), n + (s[-1] << 2)
    return _folded(y * _K2 & _64 ^ z * _K3 & _64) * _K2 & _64


def _to_32(s: bytes, n: int) -> int:
    a, b = _word(s, 0) * _K1, _word(s, 8)
    c, d = _word(s, n - 8) * _K2, _word(s, n - 16) * _K0
    return _pair(_turned(a - b, 43) + _turned(c, 30) + d, a + _turned(b ^ _K3, 20) - c + n)


def _to_64(s: bytes, n: int) -> int:
    start = _word(s, 0) + (n + _word(s, n - 16)) * _K0
    first = _mixed(start, _word(s, 24), _word(s, 8), _word(s, 16))
    second = _mixed(_word(s, 16) + _word(s, n - 32), _word(s, n - 8), _word(s, n - 24), _word(s, n - 16))
    r = _folded(((first[0] + second[1]) * _K2 + (second[0] + first[1]) * _K0) & _64)
    return _folded((r * _K0 + first[1]) & _64) * _K2 & _64


def _mixed(a: int, z: int, one: int, two: int) -> tuple[int, int]:
    b, c = _turned(a + z, 52), _turned(a, 37)
    a += one
    c += _turned(a, 7)
    a += two
    return a + z, b + _turned(a, 31) + c


def _word(s: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(s[at : at + size], "little")


def _turned(value: int, bits: int) -> int:
    value &= _64
    return (value >> bits | value << (64 - bits)) & _64


def _pair(u: int, v: int) -> int:
    a = _folded(((u ^ v) & _64) * _MULTIPLIER & _64)
    b = _folded((v & _64 ^ a) * _MULTIPLIER & _64)
    return b * _MULTIPLIER & _64


def _folded(value: int) -> int:
    return value ^ (value >> 47)
