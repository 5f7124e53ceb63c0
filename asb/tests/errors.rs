//! What is said of damaged files, and where.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use abs_asb::{
    AsbError, EncodeError, Encoder, Header, Item, Items, MAX_ITEM, Position, RecordHead, Skimmer, Version,
    WireBin, WireKey,
};

/// A record without bins, but for the line of its bin count.
const HEAD: &str = "+ n ns\n+ d AAECAwQFBgcICQoLDA0ODxAREhM=\n+ s set\n+ g 1\n+ t 0\n";

/// The first error in a text, values included; skimmed first.
fn error(text: &[u8]) -> Option<AsbError> {
    let mut skimmer = Skimmer::new(Position::START);
    let end = skimmer.skim(text).and_then(|skim| skimmer.finish(&text[skim.len..]));
    match end {
        Ok(()) => read(text).err(),
        Err(error) => {
            assert_eq!(read(text).as_ref(), Err(&error));
            Some(error)
        }
    }
}

fn read(text: &[u8]) -> Result<(), AsbError> {
    let mut items = Items::new(text, Position::START);
    let mut out = Vec::new();
    while let Some(item) = items.next()? {
        if let Item::Record(mut record) = item {
            if let Some(key) = record.key {
                key.append_to(&mut out)?;
            }
            while let Some(bin) = record.next_bin()? {
                bin.value.append_to(&mut out)?;
            }
        }
    }
    Ok(())
}

fn assert_error(text: &str, shown: &str) {
    assert_eq!(error(text.as_bytes()).map(|error| error.to_string()).as_deref(), Some(shown), "{text:?}");
}

#[test]
fn items() {
    for (text, shown) in [
        ("x", "line 1, column 1 (byte 0): expected a record, an index or a UDF module"),
        ("\n", "line 1, column 1 (byte 0): expected a record, an index or a UDF module"),
        ("+x n ns\n", "line 1, column 2 (byte 1): expected \"+ n \""),
        ("+ d ", "line 1, column 3 (byte 2): expected \"+ n \""),
        ("+ n \n", "line 1, column 5 (byte 4): expected the namespace's name"),
        (
            "+ n a\\b\n",
            "line 1, column 7 (byte 6): a backslash must be followed by a space, a line feed or a backslash",
        ),
        ("+ n a b\n", "line 1, column 6 (byte 5): expected a line feed"),
        (
            "+ n 0123456789abcdef0123456789abcdef\n",
            "line 1, column 5 (byte 4): the namespace's name is longer than 31 bytes",
        ),
        (
            "+ n ns\n+ d AAAA\n+ g 1\n+ t 0\n+ b 0\n+ x 1\n+",
            "line 2, column 5 (byte 11): expected a digest: 28 bytes of base64 and a line feed",
        ),
        (
            "+ n ns\n+ d AAAA\n+ g 1\n+ t 0\n+ b 0\n+ n",
            "line 2, column 5 (byte 11): expected a digest: 28 bytes of base64 and a line feed",
        ),
        (
            "+ n ns\n+ d AAECAwQFBgcICQoLDA0ODxAREhMU\n+ g 1\n+ t 0\n+ b 0\n",
            "line 2, column 5 (byte 11): not base64",
        ),
        ("+ k Q 1\n", "line 1, column 5 (byte 4): unknown key type \"Q\""),
        (
            "+ k I x\n+ n n\n+ d AAECAwQFBgcICQoLDA0ODxAREhM=\n+ g 1\n+ t 0\n+ b 0\n",
            "line 1, column 7 (byte 6): the integer is not a number in its range",
        ),
        ("+ n ns", "line 1, column 7 (byte 6): the text ends inside an item"),
        ("* x", "line 1, column 3 (byte 2): expected \"i\", \"e\" or \"u\""),
        ("* i n s i x 1 b N\n", "line 1, column 11 (byte 10): expected the letter of an index kind"),
        ("* i n s i N 2 b N\n", "line 1, column 13 (byte 12): expected \" 1 \": an index has one path"),
        ("* i n s i N 1 b x\n", "line 1, column 17 (byte 16): expected the letter of an index type"),
        ("* i n s i N 1 b N x\n", "line 1, column 19 (byte 18): not base64"),
        ("* i n s i N 1 b N \n", "line 1, column 19 (byte 18): not base64"),
        ("* e n s i N 1 b N\n", "line 1, column 18 (byte 17): expected a space"),
        (
            "* u P a.py 0 \n",
            "line 1, column 5 (byte 4): expected \" L \": the only language of UDF modules is Lua",
        ),
        ("* u L a 3 x\n", "line 2, column 1 (byte 12): the text ends inside an item"),
        ("* u L a 01 x\n", "line 1, column 9 (byte 8): the length is not a number in its range"),
    ] {
        assert_error(text, shown);
    }
}

#[test]
fn bins() {
    let start = HEAD.len() + "+ b 1\n".len();
    for (line, column, shown) in [
        ("+ n ns\n", 1, "expected \"- \""),
        ("- Q a 1\n", 3, "unknown bin type \"Q\""),
        ("- \x1b a 1\n", 3, "unknown bin type \"\\x1b\""),
        ("- S! a 1 x\n", 4, "expected a space"),
        (
            "- U a 1 x\n",
            3,
            "large data types are not supported: record AAECAwQFBgcICQoLDA0ODxAREhM= of set \"set\"",
        ),
        ("- I 0123456789abcdef 1\n", 5, "the bin's name is longer than 15 bytes"),
        ("- N a 1\n", 6, "expected a line feed"),
        ("- Z a t\n", 7, "expected \"T\" or \"F\""),
        ("- Z a \n", 7, "expected \"T\" or \"F\""),
        ("- I a \n", 7, "the integer is not a number in its range"),
        ("- I a -\n", 7, "the integer is not a number in its range"),
        ("- I a +1\n", 7, "the integer is not a number in its range"),
        ("- I a 01\n", 7, "the integer is not a number in its range"),
        ("- I a -0\n", 7, "the integer is not a number in its range"),
        ("- I a 9223372036854775808\n", 7, "the integer is not a number in its range"),
        ("- I a -9223372036854775809\n", 7, "the integer is not a number in its range"),
        ("- I a 99999999999999999999\n", 7, "the integer is not a number in its range"),
        ("- D a 1,5\n", 7, "not a double"),
        ("- D a 1e400\n", 7, "not a double"),
        ("- S a -1 x\n", 7, "the length is not a number in its range"),
        ("- S a 99999999999 x\n", 7, "the length is not a number in its range"),
        ("- S a 33554432 x\n", 7, "the item is longer than 33554432 bytes"),
        ("- S a 1 xx\n", 10, "expected a line feed"),
        ("- B a 3 AAA\n", 9, "not base64"),
        ("- B a 4 AA-_\n", 9, "not base64"),
        ("- B a 4 AB==\n", 9, "not base64"),
        ("- X a 4 ====\n", 9, "not base64"),
    ] {
        let offset = start + column - 1;
        assert_error(
            &format!("{HEAD}+ b 1\n{line}"),
            &format!("line 7, column {column} (byte {offset}): {shown}"),
        );
    }
    assert_error(
        &format!("{HEAD}+ b 65536\n"),
        &format!("line 6, column 5 (byte {}): the bin count is not a number in its range", HEAD.len() + 4),
    );
    assert_error(
        &format!("{HEAD}+ b 2\n- N a\n+ n ns\n"),
        &format!("line 8, column 1 (byte {}): expected \"- \"", start + 6),
    );
    assert_error(
        &format!("{HEAD}+ b 1\n- N a\n- N b\n"),
        &format!("line 8, column 1 (byte {}): expected a record, an index or a UDF module", start + 6),
    );
}

#[test]
fn line_feeds_in_values_count() {
    let text = format!("{HEAD}+ b 2\n- S a\\\nb 3 \n\n\n\n- I c x\n");
    let offset = text.len() - 2;
    assert_error(
        &text,
        &format!("line 12, column 7 (byte {offset}): the integer is not a number in its range"),
    );
}

#[test]
fn positions_go_on_behind_what_was_skimmed() {
    let item = format!("{HEAD}+ b 0\n");
    let text = format!("{item}{item}x");
    let mut skimmer = Skimmer::new(Position { line: 4, offset: 40 });
    let skim = skimmer.skim(&text.as_bytes()[..item.len() + 5]).unwrap();
    assert_eq!((skim.len, skim.items), (item.len(), 1));
    // The damage is not in the way of the item before it.
    let start = skim.len;
    let skim = skimmer.skim(&text.as_bytes()[start..]).unwrap();
    assert_eq!((skim.len, skim.items, skim.need), (item.len(), 1, 1));
    let error = skimmer.skim(b"x").unwrap_err();
    assert_eq!(skimmer.finish(b"x").as_ref(), Err(&error));
    assert_eq!((error.line, error.column, error.offset), (4 + 12, 1, 40 + text.len() as u64 - 1));
    assert_eq!(
        error.in_file("a/b.asb").to_string(),
        format!(
            "a/b.asb: line 16, column 1 (byte {}): expected a record, an index or a UDF module",
            39 + text.len()
        )
    );
}

#[test]
fn an_item_is_never_longer_than_the_limit() {
    // Many short lines, of which no length says too much.
    let half = MAX_ITEM / 2;
    let text = format!("{HEAD}+ b 4\n- S a {half} {0}\n- S b {half} {0}\n- N c\n- N d\n", " ".repeat(half));
    let error = error(text.as_bytes()).unwrap();
    assert_eq!((error.line, error.column), (8, 7));
}

#[test]
fn how_much_is_needed_is_known_from_lengths() {
    let text = format!("{HEAD}+ b 1\n- S a 1000 {}\n", "x".repeat(1000));
    let start = text.find("1000").unwrap() + 5;
    for end in [start, start + 1, start + 999, start + 1000] {
        let skim = Skimmer::new(Position::START).skim(&text.as_bytes()[..end]).unwrap();
        assert_eq!((skim.len, skim.need), (0, text.len()), "{end}");
    }
}

#[test]
fn headers() {
    let parse =
        |text: &str, at_end| Header::parse(text.as_bytes(), at_end).map_err(|error| error.to_string());
    for (text, at_end) in [
        ("Version 3.1\n# namespace a\\ b\n# first-file\n", true),
        ("Version 3.1\n# namespace a\\ b\n# first-file\n+ n a", false),
    ] {
        let (header, len, lines) = parse(text, at_end).unwrap().unwrap();
        assert_eq!(
            (header.version, header.namespace.as_slice(), header.first_file),
            (Version::V3_1, &b"a b"[..], true)
        );
        assert_eq!((len, lines), (42, 3));
    }
    let (header, len, lines) = parse("Version 3.2\n# namespace n\n+ n", false).unwrap().unwrap();
    assert_eq!((header.version, header.first_file, len, lines), (Version::V3_2, false, 26, 2));
    assert_eq!(parse("Version 3.2\n# namespace n\n", true).unwrap().unwrap().1, 26);
    let whole = "Version 3.1\n# namespace n\n# first-file\n";
    for end in 0..whole.len() {
        assert_eq!(parse(&whole[..end], false), Ok(None), "{end}");
        if end != 26 {
            let error = parse(&whole[..end], true).unwrap_err();
            assert!(error.ends_with(&format!("(byte {end}): the text ends inside the header")), "{error}");
        }
    }
    for (text, shown) in [
        ("version", "line 1, column 1 (byte 0): expected \"Version \""),
        (
            "Version 3.0\n",
            "line 1, column 9 (byte 8): backup version \"3.0\" is not supported, only 3.1 and 3.2 are",
        ),
        ("Version 3.10000000000000000000000", "line 1, column 9 (byte 8): expected a version"),
        ("Version 3.1\n# nome", "line 2, column 4 (byte 15): expected a line feed and \"# namespace \""),
        (
            "Version 3.1\n# namespace n\n# last",
            "line 3, column 3 (byte 28): expected \"# first-file\" and a line feed",
        ),
    ] {
        assert_eq!(parse(text, true).unwrap_err(), shown);
    }
}

#[test]
fn records_the_format_cannot_carry() {
    let encoder = Encoder::new("n", false);
    let head =
        RecordHead { digest: &[0; 20], set: b"", key: None, generation: 1, void_time: 0, bin_count: 1 };
    let shown = |head: RecordHead<'_>, bins: &[(&[u8], u8, &[u8])]| {
        let mut out = b"kept".to_vec();
        let bins = bins.iter().map(|&(name, particle, data)| WireBin { name, particle, data });
        let result: Result<(), EncodeError> = encoder.record(&head, bins, &mut out);
        assert_eq!(out, b"kept");
        result.unwrap_err().to_string()
    };
    for (bin, error) in [
        ((&b"a\n"[..], 5, &b""[..]), "bin \"a\\n\": unknown particle type 5"),
        ((b"a", 0, b"1"), "bin \"a\": 1 bytes are no particle of type 0"),
        ((b"a", 1, b"123"), "bin \"a\": 3 bytes are no particle of type 1"),
        ((b"a", 2, b"1234"), "bin \"a\": 4 bytes are no particle of type 2"),
        ((b"a", 17, b""), "bin \"a\": 0 bytes are no particle of type 17"),
        ((b"a", 17, b"\x02"), "bin \"a\": 1 bytes are no particle of type 17"),
        ((b"a", 23, b"\0\0"), "bin \"a\": 2 bytes are no particle of type 23"),
        ((b"a", 23, b"\0\0\x01{}"), "bin \"a\": 5 bytes are no particle of type 23"),
        ((b"0123456789abcdef", 0, b""), "bin \"0123456789abcdef\": the name is longer than 15 bytes"),
    ] {
        assert_eq!(shown(head, &[bin]), error);
    }
    assert_eq!(shown(head, &[]), "the record does not have the 1 bins its head says");
    assert_eq!(
        shown(head, &[(b"a", 0, b""), (b"b", 0, b"")]),
        "the record does not have the 1 bins its head says"
    );
    let key = |particle| RecordHead { key: Some(WireKey { particle, data: b"123" }), ..head };
    assert_eq!(shown(key(1), &[(b"a", 0, b"")]), "the user key: 3 bytes are no particle of type 1");
    assert_eq!(shown(key(20), &[(b"a", 0, b"")]), "the user key: unknown particle type 20");
    let set = [b's'; 64];
    assert_eq!(
        shown(RecordHead { set: &set, ..head }, &[(b"a", 0, b"")]),
        "the set: the name is longer than 63 bytes"
    );
}
