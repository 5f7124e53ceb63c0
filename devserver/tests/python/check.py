#!/usr/bin/env python3
"""Check a server with the official Python client: load the golden data, then read everything back.

usage: check.py HOST PORT NAMESPACE LOAD_PY

LOAD_PY is the loader of the golden data (tests/golden/load.py of the workspace). It runs as it is; only the client
object it makes is wrapped, so that every put is known here and can be compared with what the server gives back:
one by one, in a batch, in a scan, through every index. The namespace must be empty.
Exit status 0 when all is as it should be.
"""
import json
import runpy
import sys
import time
import warnings

warnings.simplefilter("ignore", DeprecationWarning)
import aerospike
from aerospike import exception, predicates
from aerospike_helpers import expressions as exp
from aerospike_helpers.batch import records as batch
from aerospike_helpers.operations import list_operations, map_operations, operations

HOST, PORT, NAMESPACE, LOAD_PY = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
#: What was put: key -> bins.
EXPECTED = {}


class Recorder:
    """A client that remembers puts."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        return getattr(self.client, name)

    def connect(self):
        self.client = self.client.connect()
        return self

    def put(self, key, bins, *rest):
        self.client.put(key, bins, *rest)
        user_key = bytes(key[2]) if isinstance(key[2], bytearray) else key[2]
        EXPECTED.setdefault((key[1], user_key), {}).update(bins)


def comparable(value):
    """A value in a form whose repr is the same for what was put and what came back."""
    if isinstance(value, aerospike.GeoJSON):
        return ("geo", json.dumps(value.unwrap(), sort_keys=True))
    if isinstance(value, (bytes, bytearray)):
        return ("blob", bytes(value))
    if isinstance(value, str):
        return value.split("\0")[0]  # as far as the client takes text
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        return sorted(((comparable(k), comparable(v)) for k, v in value.items()), key=repr)
    return value


def same(what, found, expected):
    assert repr(comparable(found)) == repr(comparable(expected)), f"{what}: {found!r}, not {expected!r}"


def full(key):
    user_key = bytearray(key[1]) if isinstance(key[1], bytes) else key[1]
    return (NAMESPACE, key[0], user_key)


def load():
    original = aerospike.client
    aerospike.client = lambda config: Recorder(original(config))
    arguments = sys.argv
    sys.argv = [LOAD_PY, HOST, str(PORT), NAMESPACE]
    try:
        runpy.run_path(LOAD_PY, run_name="__main__")
    finally:
        aerospike.client, sys.argv = original, arguments


def check_single_reads(client):
    for key, bins in EXPECTED.items():
        _, meta, found = client.get(full(key))
        same(key, found, bins)
        assert meta["gen"] == (7 if key[1] == "gen7" else 1), (key, meta)
    some = client.select((NAMESPACE, "bulk", 7), ["n", "none"])[2]
    same("select", some, {"n": 7})
    assert client.exists((NAMESPACE, "bulk", "nobody"))[1] is None
    ttl = client.get((NAMESPACE, "meta", "ttl"))[1]["ttl"]
    assert 30 * 86400 - 300 <= ttl <= 30 * 86400, ttl
    same("ordered list", client.get((NAMESPACE, "lists", "ordered"))[2]["v"], [1, 3, 5, 9])
    for name in ("kordered", "kvordered"):
        found = client.get((NAMESPACE, "maps", name))[2]["v"]
        same(name, dict(found), {"a": 2, "m": [3, {"n": 4}], "z": 1})
        assert list(found) == ["a", "m", "z"], found


def check_batches(client):
    keys = [full(key) for key in EXPECTED]
    rows = client.batch_read(keys).batch_records
    assert len(rows) == len(EXPECTED)
    for row, (key, bins) in zip(rows, EXPECTED.items()):
        assert row.result == 0, (key, row.result)
        same(key, row.record[2], bins)
    writes = batch.BatchRecords(
        [batch.Write((NAMESPACE, "batch", n), [operations.write("n", n)]) for n in range(300)]
        + [batch.Read((NAMESPACE, "bulk", n), [operations.read("n")]) for n in range(10)]
        + [batch.Remove((NAMESPACE, "batch", "nobody"))]
    )
    client.batch_write(writes)
    codes = [row.result for row in writes.batch_records]
    assert codes == [0] * 310 + [2], codes
    client.batch_remove([(NAMESPACE, "batch", n) for n in range(300)])
    assert not client.query(NAMESPACE, "batch").results()


def check_scans(client):
    #: Records that load.py makes with operations and not with a put.
    operated = {("hll", 0), ("hll", 1), ("lists", "ordered"), ("maps", "kordered"), ("maps", "kvordered")}
    found = client.query(NAMESPACE, None).results()
    assert len(found) == len(EXPECTED) + len(operated), (len(found), len(EXPECTED))
    digests = {bytes(aerospike.calc_digest(NAMESPACE, key[0] or "", full(key)[2])): bins for key, bins in EXPECTED.items()}
    for key, _, bins in found:
        expected = digests.pop(bytes(key[3]), None)
        if expected is None:
            assert (key[1], key[2]) in operated, key
        else:
            same(key, bins, expected)
    assert not digests
    parts = 0
    for begin in range(0, 4096, 1024):
        policy = {"partition_filter": {"begin": begin, "count": 1024}}
        parts += len(client.query(NAMESPACE, "bulk").results(policy))
    assert parts == 2000, parts
    few = exp.And(exp.GE(exp.IntBin("n"), 100), exp.LT(exp.IntBin("n"), 110)).compile()
    assert len(client.query(NAMESPACE, "bulk").results({"expressions": few})) == 10


def check_indexes(client):
    def count(set_name, predicate):
        query = client.query(NAMESPACE, set_name)
        query.where(predicate)
        return len(query.results())

    assert count("bulk", predicates.between("n", 10, 19)) == 10
    assert count("bulk", predicates.equals("s", "value-77")) == 1
    assert count("lists", predicates.contains("v", aerospike.INDEX_TYPE_LIST, 9)) == 2
    assert count("maps", predicates.contains("v", aerospike.INDEX_TYPE_MAPKEYS, "z")) == 3
    assert count("maps", predicates.range("v", aerospike.INDEX_TYPE_MAPVALUES, 1, 1)) == 4


def check_info(client):
    answers = client.info_all("udf-list")
    assert answers and all("golden.lua" in answer for _, answer in answers.values()), answers
    for _, answer in client.info_all(f"sindex-list:namespace={NAMESPACE}").values():
        names = {line.split("indexname=")[1].split(":")[0] for line in answer.strip().split(";")}
        wanted = {"idx_num", "idx str", "idx_geo", "idx_list", "idx_mapkeys", "idx_mapvals", "idx_blob", "idx_ctx"}
        assert names == wanted, names
    text = client.udf_get("golden.lua")
    assert text.startswith("-- golden UDF module"), text


def check_writes(client):
    key = (NAMESPACE, "writes", 1)

    def refused(error, write, *arguments):
        try:
            write(*arguments)
        except error:
            return
        raise AssertionError(f"{write} {arguments} was not refused")

    refused(exception.RecordNotFound, client.put, key, {"n": 1}, {}, {"exists": aerospike.POLICY_EXISTS_UPDATE})
    client.put(key, {"n": 1}, {}, {"exists": aerospike.POLICY_EXISTS_CREATE})
    refused(exception.RecordExistsError, client.put, key, {"n": 1}, {}, {"exists": aerospike.POLICY_EXISTS_CREATE})
    refused(exception.RecordGenerationError, client.put, key, {"n": 1}, {"gen": 9}, {"gen": aerospike.POLICY_GEN_EQ})
    client.put(key, {"n": 2}, {"gen": 9}, {"gen": aerospike.POLICY_GEN_GT})
    client.put(key, {"m": 3}, {}, {"exists": aerospike.POLICY_EXISTS_CREATE_OR_REPLACE})
    same("replaced", client.get(key)[2], {"m": 3})
    client.increment(key, "m", 4)
    client.append(key, "s", "bc")
    client.prepend(key, "s", "a")
    ops = [
        list_operations.list_append("l", 1),
        list_operations.list_append_items("l", [3, 2]),
        list_operations.list_size("l"),
        map_operations.map_put("map", "k", 5),
        map_operations.map_get_by_key("map", "k", aerospike.MAP_RETURN_VALUE),
        operations.read("s"),
    ]
    results = [value for _, value in client.operate_ordered(key, ops)[2]]
    assert results == [1, 3, 3, 1, 5, "abc"], results
    same("all", client.get(key)[2], {"m": 7, "s": "abc", "l": [1, 3, 2], "map": {"k": 5}})
    client.touch(key, 100)
    assert 98 <= client.exists(key)[1]["ttl"] <= 100
    client.remove_bin(key, ["l", "map"])
    same("fewer bins", client.get(key)[2], {"m": 7, "s": "abc"})
    client.remove(key)
    refused(exception.RecordNotFound, client.remove, key)


def main():
    load()
    client = aerospike.client({"hosts": [(HOST, PORT)]}).connect()
    for check in (check_single_reads, check_batches, check_scans, check_indexes, check_info, check_writes):
        began = time.monotonic()
        check(client)
        print(f"{check.__name__}: ok, {time.monotonic() - began:.2f} s", flush=True)
    client.truncate(NAMESPACE, None, 0)
    assert not client.query(NAMESPACE, None).results()
    client.close()


main()
