//! Every value a record can have comes back as it was, to the byte.

use super::Backups;
use crate::raw::{
    self, Contents, Particle, Raw, blob, boolean, float, geojson, hll, integer, list, map, read, same, string,
};
use crate::support::{Server, golden};

/// Backs up, wipes, restores, and insists that all is as it was.
#[track_caller]
fn there_and_back(server: &Server, backups: &Backups, name: &str, options: &[&str]) -> Contents {
    let before = read(server);
    server.backup(&backups.at(name), options).ok();
    server.wipe();
    // A row that takes long must not be sent twice.
    let patient = ["--json", "--socket-timeout", "60000"];
    let summary = server.restore(&server.namespace, &backups.at(name), &patient).ok().json();
    assert_eq!(summary["inserted-records"], before.len());
    let after = read(server);
    same(&after, &before);
    after
}

/// A record for every value, each in a bin of its own record, under this set.
fn each(start: u64, set: &str, values: impl IntoIterator<Item = Particle>) -> Vec<Raw> {
    let record = |(n, value)| Raw::new(start + n).set(set).bin("v", value);
    (0..).zip(values).map(record).collect()
}

/// The values where a text format or a careless decoder goes wrong.
fn values() -> Vec<Raw> {
    let mut records = Vec::new();
    records.extend(each(
        1000,
        "integers",
        [0, 1, -1, i64::MIN, i64::MAX, 1 << 31, -(1 << 31) - 1, 1 << 53].map(integer),
    ));
    let doubles = [
        0.0_f64.to_bits(),
        (-0.0_f64).to_bits(),
        1,
        0x8000_0000_0000_0001,
        f64::MIN_POSITIVE.to_bits(),
        f64::MAX.to_bits(),
        f64::MIN.to_bits(),
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        0.1_f64.to_bits(),
        1e21_f64.to_bits(),
        // NaNs: quiet and signalling, of both signs, with payloads.
        0x7ff8_0000_0000_0000,
        0xfff8_0000_0000_0000,
        0x7ff0_0000_0000_0001,
        0xfff0_0000_0000_0001,
        0x7fff_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
        0x7ff8_dead_beef_cafe,
    ];
    records.extend(each(1100, "doubles", doubles.map(float)));
    let all_bytes: Vec<u8> = (0..=255).collect();
    let texts: [&[u8]; 9] = [
        b"",
        b" ",
        b"\n",
        b"\\",
        b"\0",
        b"nul\0inside",
        b"+ n fake\n- S v 1 x\n",
        b"\xff\xfe not utf-8",
        &all_bytes,
    ];
    records.extend(each(1200, "strings", texts.map(string)));
    records.extend(each(1300, "blobs", texts.map(blob)));
    records.extend(each(1400, "booleans", [true, false].map(boolean)));
    records.extend(each(
        1500,
        "geo",
        [
            r#"{"type":"Point","coordinates":[-122.1,37.4]}"#,
            r#"{ "type" : "Point" , "coordinates" : [ 0 , -0.5 ] }"#,
            r#"{"type":"AeroCircle","coordinates":[[10.25,50.5],1000.0]}"#,
            r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,1],[0,0]]]}"#,
        ]
        .map(geojson),
    ));
    records.extend(each(1600, "hll", [hll()]));
    // Lists: empty, of everything with nil, nested, ordered and empty, ordered.
    let lists: [&[u8]; 6] = [
        b"\x90",
        b"\x97\x01\xc0\xc3\xa2\x03s\xa3\x04\0\n\xcb\x7f\xf8\0\0\0\0\0\x01\x91\xc0",
        b"\x91\x91\x91\x81\xa2\x03k\x91\xc0",
        b"\x91\xc7\x00\x01",
        b"\x94\xc7\x00\x01\x01\x02\x03",
        b"\x93\x90\x80\xa1\x03",
    ];
    records.extend(each(1700, "lists", lists.map(list)));
    // Maps: empty, unordered, by key, by key and value (each also empty), nested orders.
    let maps: [&[u8]; 7] = [
        b"\x80",
        b"\x83\xa2\x03z\x01\xa2\x03a\xc0\x05\xa2\x03\n",
        b"\x81\xc7\x00\x01\xc0",
        b"\x83\xc7\x00\x01\xc0\x01\xc0\xa2\x03a\x02",
        b"\x81\xc7\x00\x03\xc0",
        b"\x83\xc7\x00\x03\xc0\xa2\x03a\x02\xa2\x03z\x01",
        b"\x82\xc7\x00\x01\xc0\x01\x82\xc7\x00\x03\xc0\xa2\x03k\x92\xc7\x00\x01\x09",
    ];
    records.extend(each(1800, "maps", maps.map(map)));
    records
}

/// Names, keys and metadata where escaping and lengths go wrong.
fn heads() -> Vec<Raw> {
    let one = || integer(1);
    let mut records = Vec::new();
    let longest_set = "s".repeat(63);
    for (n, set) in
        (0..).zip([" ", "\n", "\\", "a b\\c\nd", "\\n", "+ g 5", "множество", &longest_set, "-", "*"])
    {
        records.push(Raw::new(2000 + n).set(set).bin("v", one()));
    }
    for (n, name) in (0..).zip(["a", " ", "\n", "\\", "\\ ", "x\ny z\\", "S 5 x", "имя", "fifteen bytes: "])
    {
        records.push(Raw::new(2100 + n).bin(name, one()).bin(format!("{n}"), string(name)));
    }
    let keys = [
        integer(0),
        integer(i64::MIN),
        string(""),
        string(" "),
        string("a b\nc\\d\0e"),
        string("\\"),
        string(vec![b'k'; 3000]),
        blob([]),
        blob((0..=255).collect::<Vec<u8>>()),
        float(0x7ff8_dead_beef_cafe),
    ];
    for (n, key) in (0..).zip(keys) {
        records.push(Raw::new(2200 + n).set("keys").key(key).bin("v", one()));
    }
    for (n, ttl) in (0..).zip([3600, 86_400, 86_400 * 365, 86_400 * 3650 - 60]) {
        records.push(Raw::new(2300 + n).ttl(ttl).bin("v", one()));
    }
    records
}

/// Protects: every particle type with every awkward value, names, keys and void times, in both spellings.
#[test]
fn values_names_keys_and_times() {
    let (server, backups) = (Server::start(3), Backups::new());
    raw::load(&server, &values());
    raw::load(&server, &heads());
    let kept = read(&server);
    // The server keeps what was written: otherwise the comparison would be of nothing.
    for record in values().iter().chain(&heads()) {
        assert_eq!(kept[&record.digest].bins.len(), record.bins.len());
        assert_eq!(kept[&record.digest].key, record.key);
    }
    there_and_back(&server, &backups, "plain", &[]);
    there_and_back(&server, &backups, "compact", &["--compact", "--compress", "zstd"]);
}

/// Protects: what the official client writes (collections of every order, `HyperLogLog`, `GeoJSON`) survives as wire
/// bytes, not only as text.
#[test]
fn the_golden_data_to_the_byte() {
    let (server, backups) = (Server::start(3), Backups::new());
    server.restore("source-ns1", &golden().join("asb/plain"), &[]).ok();
    let before = there_and_back(&server, &backups, "plain", &[]);
    let kinds: std::collections::BTreeSet<u8> =
        before.values().flat_map(|record| record.bins.values()).map(|value| value.kind).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 17, 18, 19, 20, 23]);
}

/// Bytes of the largest record that the server takes, all overhead included: from 1 MiB, as servers come, to 8 MiB.
fn most(server: &Server) -> usize {
    let namespace = server.info(&format!("namespace/{}", server.namespace));
    let limit = namespace.split(';').find_map(|pair| pair.strip_prefix("max-record-size="));
    limit.unwrap().parse().unwrap()
}

/// Protects: records of many bins, of 900 KB, and of as much as the server takes; blocks, batches and chunked reads must
/// carry them whole, however they are cut.
#[test]
fn huge_records() {
    let (server, backups) = (Server::start(2), Backups::new());
    let noise = |n: usize| (0..n).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect::<Vec<u8>>();
    let mut many = Raw::new(1).set("huge");
    for n in 0..3000 {
        many = many.bin(format!("bin {n}"), integer(n));
    }
    let most = most(&server);
    let half = noise(most / 2 - 1000);
    let records = [
        many,
        Raw::new(2).set("huge").bin("b", blob(noise(900_000))),
        Raw::new(3).set("huge").bin("s", string(noise(900_000))),
        Raw::new(4).set("huge").bin("b", blob(noise(most - 1000))),
        Raw::new(5).set("huge").bin("b", blob(half.clone())).bin("s", string(half)),
    ];
    raw::load(&server, &records);
    there_and_back(&server, &backups, "plain", &["--file-limit", "1"]);
    there_and_back(
        &server,
        &backups,
        "packed",
        &["--compact", "--compress", "zstd:1", "--parallel-write", "1"],
    );
    let key = golden().join("test-key.b64");
    let key = key.to_str().unwrap();
    let options = ["--encrypt", "aes128", "--encryption-key-file", key];
    let before = read(&server);
    server.backup(&backups.at("encrypted"), &options).ok();
    server.wipe();
    let singly = [&options[..], &["--disable-batch-writes", "--parallel", "1"]].concat();
    server.restore(&server.namespace, &backups.at("encrypted"), &singly).ok();
    same(&read(&server), &before);
}

/// Protects: a record that this server does not take, but another one did, is refused by name or counted.
#[test]
fn a_record_too_big_for_the_server() {
    let (server, backups) = (Server::start(1), Backups::new());
    let (namespace, most) = (&server.namespace, most(&server));
    let text = |number, value: &str| {
        let digest = Raw::new(number).name();
        let head = format!("+ n {namespace}\n+ d {digest}\n+ g 1\n+ t 0\n+ b 1\n");
        format!("{head}- S v {} {value}\n", value.len())
    };
    std::fs::create_dir(backups.at("f")).unwrap();
    let text =
        format!("Version 3.1\n# namespace {namespace}\n{}", text(1, "small") + &text(2, &"x".repeat(most)));
    std::fs::write(backups.at("f").join("a.asb"), text).unwrap();
    let name = Raw::new(2).name();
    let outcome = server.restore(namespace, &backups.at("f"), &[]);
    outcome.fails(1, &["writing record", &name, "record too big (code 13)"]);
    let options = ["--ignore-record-error", "--json"];
    let summary = server.restore(namespace, &backups.at("f"), &options).ok().json();
    assert_eq!((&summary["read-records"], &summary["ignored-records"]), (&2.into(), &1.into()));
    assert_eq!(server.objects(), 1);
}

/// Protects: the record with as many bins as the server takes.
#[test]
fn as_many_bins_as_there_can_be() {
    let (server, backups) = (Server::start(1), Backups::new());
    let mut record = Raw::new(1);
    for n in 0..32_767 {
        record = record.bin(format!("{n}"), boolean(n % 2 == 0));
    }
    raw::load(&server, &[record]);
    let before = there_and_back(&server, &backups, "b", &[]);
    assert_eq!(before.values().next().unwrap().bins.len(), 32_767);
}
