//! What must hold for any bytes at all: the tests and the fuzz target ask the same.

use abs_asb::{
    AsbError, AsbErrorKind, Encoder, Item, Items, Position, Record, RecordHead, Skimmer, WireBin, WireKey,
};

/// Whole items of a text, and why there are no more: damage, or the text's end.
#[derive(Debug, PartialEq)]
struct Whole {
    len: usize,
    items: usize,
    end: Result<(), AsbError>,
}

/// Skims `text`, which arrives in pieces of the sizes `pieces` gives.
fn skim(text: &[u8], mut pieces: impl FnMut() -> usize) -> Whole {
    let mut skimmer = Skimmer::new(Position::START);
    let mut whole = Whole { len: 0, items: 0, end: Ok(()) };
    let mut arrived = pieces().min(text.len());
    let mut need = 0;
    loop {
        assert_eq!(skimmer.position().offset as usize, whole.len);
        let skim = match skimmer.skim(&text[whole.len..arrived]) {
            Ok(skim) => skim,
            Err(error) => return Whole { end: Err(error), ..whole },
        };
        assert!(skim.len == 0 || skim.len >= need, "an item was whole before it could be");
        whole.len += skim.len;
        whole.items += skim.items;
        need = skim.need;
        if need <= arrived - whole.len {
            let end = Err(skimmer.skim(&text[whole.len..arrived]).expect_err("what follows is damaged"));
            return Whole { end, ..whole };
        }
        if arrived == text.len() {
            return Whole { end: skimmer.finish(&text[whole.len..]), ..whole };
        }
        arrived = text.len().min(arrived + pieces());
    }
}

/// Checks everything this crate promises about any text; the first bytes choose how it is cut into pieces.
pub fn check(bytes: &[u8]) {
    let (cuts, text) = bytes.split_at(bytes.len().min(2));
    let whole = skim(text, || text.len());
    let mut seed = cuts.iter().fold(1u32, |seed, &cut| seed * 256 + u32::from(cut));
    let pieces = skim(text, || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (seed >> 16) as usize % (1 << (seed >> 28))
    });
    assert_eq!(pieces, whole);
    let encoder = Encoder::new("fuzz", false);
    let mut again = Vec::new();
    match rewrite(text, &encoder, &mut again) {
        Ok(items) => assert_eq!((items, whole.end), (whole.items, Ok(()))),
        // What the skimmer finds the reader finds too, unless it stops at a value before.
        Err(error) if is_value(&error.kind) => {}
        Err(error) => assert_eq!(Err(error), whole.end),
    }
    // The items in front of the damage are good, but for their values.
    match rewrite(&text[..whole.len], &encoder, &mut Vec::new()) {
        Ok(items) => assert_eq!(items, whole.items),
        Err(error) => assert!(is_value(&error.kind), "{error}"),
    }
    // What was written is read, and written again as it was.
    let mut third = Vec::new();
    rewrite(&again, &encoder, &mut third).unwrap();
    assert!(third == again);
}

/// Whether only the reader of items looks for this.
fn is_value(kind: &AsbErrorKind) -> bool {
    matches!(
        kind,
        AsbErrorKind::Base64
            | AsbErrorKind::Double
            | AsbErrorKind::Utf8(_)
            | AsbErrorKind::Number("the integer")
            | AsbErrorKind::Expected("\"T\" or \"F\"")
    )
}

/// Reads every item and appends it to `out`, up to the first that is wrong.
fn rewrite(text: &[u8], encoder: &Encoder, out: &mut Vec<u8>) -> Result<usize, AsbError> {
    let mut items = Items::new(text, Position::START);
    let mut count = 0;
    while let Some(item) = items.next()? {
        match item {
            Item::Record(mut record) => append(&mut record, encoder, out)?,
            Item::Index(index) => encoder.index(&index, out),
            Item::Udf(udf) => encoder.udf(&udf, out),
        }
        count += 1;
    }
    Ok(count)
}

/// Reads a record and appends it to `out`.
pub fn append(record: &mut Record<'_>, encoder: &Encoder, out: &mut Vec<u8>) -> Result<(), AsbError> {
    let mut key = Vec::new();
    if let Some(value) = record.key {
        value.append_to(&mut key)?;
    }
    let mut bins = Vec::new();
    while let Some(bin) = record.next_bin()? {
        let mut data = b"kept".to_vec();
        let result = bin.value.append_to(&mut data);
        assert!(data.starts_with(b"kept") && (result.is_ok() || data.len() == 4));
        result?;
        bins.push((bin.name, bin.value.particle(), data));
    }
    let names: Vec<_> = bins.iter().map(|(name, ..)| name.to_bytes()).collect();
    let head = RecordHead {
        digest: &record.digest,
        set: &record.set.to_bytes(),
        key: record.key.map(|value| WireKey { particle: value.particle() as u8, data: &key }),
        generation: record.generation,
        void_time: record.expiration,
        bin_count: record.bin_count,
    };
    let bins = bins.iter().zip(&names).map(|((_, particle, data), name)| WireBin {
        name,
        particle: *particle as u8,
        data: &data[4..],
    });
    encoder.record(&head, bins, out).expect("what was read can be written");
    Ok(())
}
