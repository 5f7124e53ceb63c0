//! Doubles as text: what glibc's `printf("%.17g")` writes, which reads back to the same 64 bits.
//!
//! 17 significant digits are `m · 2^e · 10^q`, rounded, for a `q` that leaves 17 digits before the point. A table has
//! every `10^q` as a 128-bit fraction; the product with the double's 53 bits is off by less than 2^-60 of a unit in
//! the last digit, so the rounding is certain except within a hair of one half (and exactly at it, where C rounds to
//! even). Those few go through the standard library's exact formatting.

use std::io::Write;

/// The powers of ten the table has. A double's digits need 10^-292 (for 1.8e308) to 10^340 (for 4.9e-324).
const MIN_POWER: i32 = -292;
const MAX_POWER: i32 = 340;

/// `10^q = POWERS[q - MIN_POWER] · 2^(floor(log2(10^q)) - 127)`: the highest bit is always set. Every entry is cut
/// off after the one before it, so the last of a direction is off by 340 units of 2^-127 at the most: 2^-118.
static POWERS: [u128; (MAX_POWER - MIN_POWER + 1) as usize] = {
    let one = -MIN_POWER as usize;
    let mut powers = [1 << 127; (MAX_POWER - MIN_POWER + 1) as usize];
    let mut i = one + 1;
    while i < powers.len() {
        // · 10 / 16, and · 2 where that loses the highest bit.
        let (high, low) = (powers[i - 1] / 8, powers[i - 1] % 8);
        powers[i] = high * 5 + low * 5 / 8;
        if powers[i] >> 127 == 0 {
            powers[i] = powers[i - 1] / 4 * 5 + powers[i - 1] % 4 * 5 / 4;
        }
        i += 1;
    }
    i = one;
    while i > 0 {
        i -= 1;
        // · 16 / 10, and / 2 where that is more than 128 bits.
        let (high, low) = (powers[i + 1] / 5, powers[i + 1] % 5);
        powers[i] = if high >> 125 == 0 { high * 8 + low * 8 / 5 } else { high * 4 + low * 4 / 5 };
    }
    powers
};

/// How far from one half a fraction must be for the rounding to be certain, in units of 2^-SURE.
const SURE: u32 = 48;

/// Bits of the mantissa, and the lowest exponent.
const MANTISSA: u64 = (1 << 52) - 1;
const QUIET_NAN: u64 = 0x7ff8_0000_0000_0000;
const INFINITY: u64 = 0x7ff0_0000_0000_0000;
const SIGN: u64 = 1 << 63;

/// Appends `value` to `out` as `%.17g`. NaNs other than the two default ones keep their bits: `nan(0x…)`.
pub(crate) fn append(value: f64, out: &mut Vec<u8>) {
    let bits = value.to_bits();
    if bits & SIGN != 0 {
        out.push(b'-');
    }
    match bits & !SIGN {
        0 => out.push(b'0'),
        QUIET_NAN => out.extend_from_slice(b"nan"),
        INFINITY => out.extend_from_slice(b"inf"),
        nan if nan > INFINITY => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "nan({:#x})", nan & MANTISSA);
        }
        finite => append_finite(finite, out),
    }
}

/// Appends the double of these bits: not negative, not zero, finite.
fn append_finite(bits: u64, out: &mut Vec<u8>) {
    let (number, exponent) = digits(bits);
    let mut buffer = itoa::Buffer::new();
    let all = buffer.format(number).as_bytes();
    let digits = &all[..all.iter().rposition(|&digit| digit != b'0').map_or(1, |last| last + 1)];
    if (0..17).contains(&exponent) {
        let whole = exponent as usize + 1;
        match digits.split_at_checked(whole) {
            Some((whole, [])) => out.extend_from_slice(whole),
            Some((whole, fraction)) => {
                out.extend_from_slice(whole);
                out.push(b'.');
                out.extend_from_slice(fraction);
            }
            None => out.extend_from_slice(&all[..whole]),
        }
    } else if (-4..0).contains(&exponent) {
        out.extend_from_slice(&b"0.000"[..(1 - exponent) as usize]);
        out.extend_from_slice(digits);
    } else {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(exponent.abs()).as_bytes());
    }
}

/// The 17 significant digits of a double as a whole number, and the power of ten of the first.
fn digits(bits: u64) -> (u64, i32) {
    quick_digits(bits).unwrap_or_else(|| exact_digits(bits))
}

/// [`digits`], where the table is exact enough to know them.
#[inline]
fn quick_digits(bits: u64) -> Option<(u64, i32)> {
    let (mantissa, exponent) = match bits >> 52 {
        0 => (bits, -1074),
        biased => (bits & MANTISSA | 1 << 52, biased as i32 - 1075),
    };
    let shift = mantissa.leading_zeros();
    let mantissa = mantissa << shift;
    // The value is mantissa / 2^63 · 2^binary: at least 2^binary, less than twice that.
    let binary = exponent - shift as i32 + 63;
    let mut decimal = log10_of_power_of_two(binary);
    loop {
        let power = 16 - decimal;
        let (fraction_bits, product) = {
            let ten = POWERS[(power - MIN_POWER) as usize];
            let high = u128::from(mantissa) * (ten >> 64);
            let low = u128::from(mantissa) * (ten & u128::from(u64::MAX));
            // mantissa · ten / 2^64, of which the highest bits are whole units.
            (190 - 64 - binary - log2_of_power_of_ten(power), high + (low >> 64))
        };
        let number = (product >> fraction_bits) as u64;
        if number >= 100_000_000_000_000_000 {
            decimal += 1;
            continue;
        }
        let fraction = product & ((1 << fraction_bits) - 1);
        let half = 1 << (fraction_bits - 1);
        if fraction.abs_diff(half) >> (fraction_bits as u32 - SURE) == 0 {
            return None;
        }
        let rounded = number + u64::from(fraction > half);
        return Some(if rounded == 100_000_000_000_000_000 {
            (rounded / 10, decimal + 1)
        } else {
            (rounded, decimal)
        });
    }
}

/// [`digits`] by way of the standard library, which is exact and rounds to even, but slow.
#[cold]
fn exact_digits(bits: u64) -> (u64, i32) {
    let text = format!("{:.16e}", f64::from_bits(bits));
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let number = digits
        .bytes()
        .filter(u8::is_ascii_digit)
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    (number, exponent.parse().unwrap_or(0))
}

/// `floor(log10(2^n))`, right for |n| < 1651.
const fn log10_of_power_of_two(n: i32) -> i32 {
    (n * 78_913) >> 18
}

/// `floor(log2(10^n))`, right for |n| < 1234.
const fn log2_of_power_of_ten(n: i32) -> i32 {
    (n * 1_741_647) >> 19
}

/// The double a text stands for: what [`append`] writes, and every other decimal form C and Go write.
#[inline]
pub(crate) fn parse(text: &[u8]) -> Option<f64> {
    if text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) {
        let value: f64 = str::from_utf8(text).ok()?.parse().ok()?;
        // A finite text that no double is near to is damage.
        return value.is_finite().then_some(value);
    }
    not_finite(text).map(f64::from_bits)
}

fn not_finite(text: &[u8]) -> Option<u64> {
    Some(match text {
        b"nan" | b"NaN" => QUIET_NAN,
        b"-nan" | b"-NaN" => QUIET_NAN | SIGN,
        b"inf" | b"+inf" | b"Inf" | b"+Inf" => INFINITY,
        b"-inf" | b"-Inf" => INFINITY | SIGN,
        [b'-', text @ ..] => payload(text)? | SIGN,
        text => payload(text)?,
    })
}

/// `nan(0x…)`: a NaN with these 52 bits, which cannot all be zero.
fn payload(text: &[u8]) -> Option<u64> {
    let hex = text.strip_prefix(b"nan(0x")?.strip_suffix(b")")?;
    if !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let bits = u64::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()?;
    (1..=MANTISSA).contains(&bits).then_some(INFINITY | bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        append(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What `printf("%.17g")` of glibc 2.36 printed, but for the two NaNs with a payload.
    #[test]
    fn like_glibc() {
        for (value, printed) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (-1.5, "-1.5"),
            (3.0, "3"),
            (100.0, "100"),
            (0.1, "0.10000000000000001"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (1e-7, "9.9999999999999995e-08"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1e21, "1e+21"),
            (1e100, "1e+100"),
            (1e308, "1e+308"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "4.9406564584124654e-324"),
            (123_456_789.123_456_79, "123456789.12345679"),
            // Ties: to even.
            (4_503_599_627_370_489.0 / 8.0, "562949953421311.12"),
            (4_503_599_627_370_491.0 / 8.0, "562949953421311.38"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::from_bits(QUIET_NAN), "nan"),
            (f64::from_bits(QUIET_NAN | SIGN), "-nan"),
            (f64::from_bits(INFINITY | 1), "nan(0x1)"),
            (f64::from_bits(QUIET_NAN | SIGN | 0xab), "-nan(0x80000000000ab)"),
        ] {
            assert_eq!(text(value), printed);
        }
    }

    #[test]
    fn other_forms_are_read() {
        for (text, bits) in [
            ("NaN", QUIET_NAN),
            ("+inf", INFINITY),
            ("+Inf", INFINITY),
            ("Inf", INFINITY),
            ("-Inf", INFINITY | SIGN),
            ("0.1", 0.1f64.to_bits()),
            ("1e+21", 1e21f64.to_bits()),
            ("1E-7", 1e-7f64.to_bits()),
            ("-0.0", SIGN),
        ] {
            assert_eq!(parse(text.as_bytes()).map(f64::to_bits), Some(bits), "{text}");
        }
        for text in [
            "",
            "-",
            ".",
            "1e",
            "0x1p3",
            "1 ",
            " 1",
            "1e999",
            "infinity",
            "nan()",
            "nan(0x0)",
            "nan(0x+1)",
            "1_0",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn every_power_of_two_is_exact() {
        for exponent in -1074..1024 {
            let value =
                if exponent < -1022 { f64::from_bits(1 << (exponent + 1074)) } else { 2f64.powi(exponent) };
            for bits in [value.to_bits() - 1, value.to_bits(), value.to_bits() + 1] {
                if bits != 0 {
                    assert_eq!(digits(bits), exact_digits(bits), "{bits:#x}");
                }
            }
        }
    }

    #[test]
    fn every_power_of_ten_is_exact() {
        for exponent in -323..309 {
            let bits = format!("1e{exponent}").parse::<f64>().unwrap().to_bits();
            for bits in bits.saturating_sub(2).max(1)..bits + 3 {
                assert_eq!(digits(bits), exact_digits(bits), "{bits:#x}");
            }
        }
    }

    #[test]
    fn the_quick_way_is_the_usual_one() {
        let quick = (1..10_000).filter(|&i| quick_digits((f64::from(i) / 7.0).to_bits()).is_some()).count();
        assert!(quick > 9_900, "{quick}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn the_quick_way_is_exact(bits in 1..INFINITY) {
            if let Some(quick) = quick_digits(bits) {
                prop_assert_eq!(quick, exact_digits(bits));
            }
        }

        #[test]
        fn short_decimals_are_exact(number in 1u64..1_000_000_000_000_000_000, scale in -20i32..20) {
            let bits = format!("{number}e{scale}").parse::<f64>().unwrap().to_bits();
            prop_assert_eq!(digits(bits), exact_digits(bits));
        }

        #[test]
        fn dyadic_ties_go_to_even(whole in 1u64 << 47..1 << 53, shift in 0i32..8) {
            let bits = (whole as f64 / 2f64.powi(shift)).to_bits();
            prop_assert_eq!(digits(bits), exact_digits(bits));
        }

        #[test]
        fn every_double_comes_back(bits: u64) {
            prop_assert_eq!(parse(text(f64::from_bits(bits)).as_bytes()).map(f64::to_bits), Some(bits));
        }
    }
}
