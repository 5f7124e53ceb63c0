"""Reads and writes files in the modes AES128GCM and AES256GCM as docs/FORMAT.md describes them.

gcm.py open KEY                  the text of the file on standard input
gcm.py seal KEY SALT RUN NAME    the file of the text on standard input
gcm.py check FORMAT.md           the test vector of the documentation

KEY and SALT are hexadecimal digits.
"""

import re
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC = b"ABS-GCM1"
CHUNK = 65536
TAG = 16


def derive(key, salt, label, length):
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=label).derive(key)


def key_id(key):
    return derive(key, None, b"abs key id", 8)


def nonce(number, is_last):
    return bytes(3) + struct.pack(">QB", number, is_last)


def head_of(key, salt, run, name):
    texts = b"".join(struct.pack(">H", len(text)) + text for text in (run, name))
    return MAGIC + bytes([len(key)]) + key_id(key) + salt + texts


def seal(key, salt, run, name, text):
    head = head_of(key, salt, run, name)
    cipher = AESGCM(derive(key, salt, b"abs data", len(key)))
    chunks = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)] or [b""]
    sealed = (
        cipher.encrypt(nonce(number, number == len(chunks) - 1), chunk, head)
        for number, chunk in enumerate(chunks)
    )
    return head + b"".join(sealed)


def open_file(key, file):
    salt = file[17:49]
    run_end = 51 + struct.unpack_from(">H", file, 49)[0]
    end = run_end + 2 + struct.unpack_from(">H", file, run_end)[0]
    head, body = file[:end], file[end:]
    assert head == head_of(key, salt, file[51:run_end], file[run_end + 2 : end]), "another head"
    cipher = AESGCM(derive(key, salt, b"abs data", len(key)))
    chunks = [body[at : at + CHUNK + TAG] for at in range(0, len(body), CHUNK + TAG)]
    return b"".join(
        cipher.decrypt(nonce(number, number == len(chunks) - 1), chunk, head)
        for number, chunk in enumerate(chunks)
    )


def check(documentation):
    block = re.search(r"```text\n(key .*?)```", documentation, re.DOTALL).group(1)
    vector = {}
    for line in block.splitlines():
        # What goes on in the next line is indented.
        if not line.startswith(" "):
            name, _, line = line.partition(" ")
        vector[name] = vector.get(name, "") + line.strip()
    key, salt, file = (bytes.fromhex(vector[name]) for name in ("key", "salt", "file"))
    run, name, text = (vector[name].encode() for name in ("run", "name", "text"))
    text = text.replace(b"\\n", b"\n")
    assert key_id(key).hex() == vector["id"], key_id(key).hex()
    sealed = seal(key, salt, run, name, text)
    assert sealed == file, sealed.hex()
    assert open_file(key, file) == text


def main():
    match sys.argv[1:]:
        case ["open", key]:
            sys.stdout.buffer.write(open_file(bytes.fromhex(key), sys.stdin.buffer.read()))
        case ["seal", key, salt, run, name]:
            key, salt = bytes.fromhex(key), bytes.fromhex(salt)
            text = sys.stdin.buffer.read()
            sys.stdout.buffer.write(seal(key, salt, run.encode(), name.encode(), text))
        case ["check", path]:
            with open(path, encoding="utf-8") as file:
                check(file.read())
        case _:
            sys.exit(__doc__)


main()
