"""Checks the backup in a folder as docs/FORMAT.md describes it: manifest.py FOLDER KEY

KEY is the AES key in hexadecimal digits. The BLAKE3 hashes are not checked: the hash of files must be sha256.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import struct
import sys

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 1 << 20


def crc_table():
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


TABLE = list(crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def main(folder, key):
    folder = pathlib.Path(folder)
    text = (folder / "manifest.json").read_bytes()
    manifest = json.loads(text)
    covered = text[: text.rindex(b',"mac":"')]
    mac_key = HKDF(algorithm=SHA256(), length=64, salt=None, info=b"abs manifest").derive(bytes.fromhex(key))
    assert hmac.new(mac_key, covered, hashlib.sha256).hexdigest() == manifest["mac"], "mac"
    yaml = (folder / "metadata.yaml").read_text().splitlines(keepends=True)
    assert yaml[-1].startswith("manifest-hash: ") and "".join(yaml[:-1]) == manifest["metadata"], "metadata"
    assert [file["name"] for file in manifest["files"]] == sorted(file.name for file in folder.glob("*.asb"))
    for file in manifest["files"]:
        data = (folder / file["name"]).read_bytes()
        assert len(data) == file["size"], file
        sums = b"".join(struct.pack("<I", crc32c(data[at : at + CHUNK])) for at in range(0, len(data), CHUNK))
        assert base64.b64decode(file["sums"]) == sums, file
        assert "sha256:" + hashlib.sha256(data).hexdigest() == file["hash"], file
    print(sum(file["records"] for file in manifest["files"]))


main(*sys.argv[1:])
