//! The one text of a JSON value that is signed: the JSON Canonicalization Scheme, RFC 8785 (rule C-21).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::json::{Data, Member, Value};

/// Why a value has no canonical text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::verify) enum Error {
    /// A name is there twice, so readers disagree on what the object says.
    #[error("a member is there twice")]
    Duplicate,
    /// A number is beyond the range of a double; RFC 8785, 3.2.2.3.
    #[error("a number is too large")]
    Number,
    /// A string is, or was made, no text: it holds U+FFFD, which stands for what could not be read.
    #[error("a string is not valid Unicode")]
    Text,
}

/// The canonical text; RFC 8785, 3.2.
pub(in crate::verify) fn text(value: &Value<'_>) -> Result<String, Error> {
    let mut out = String::new();
    push(&mut out, value)?;
    Ok(out)
}

fn push(out: &mut String, value: &Value<'_>) -> Result<(), Error> {
    match &value.data {
        Data::Null => out.push_str("null"),
        Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Data::Number(written) => out.push_str(&number(written)?),
        Data::String(text) => push_string(out, text)?,
        Data::Array(elements) => {
            out.push('[');
            for (n, element) in elements.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                push(out, element)?;
            }
            out.push(']');
        }
        Data::Object(members) => push_object(out, members)?,
    }
    Ok(())
}

/// Members in the order of their names as UTF-16; RFC 8785, 3.2.3.
fn push_object(out: &mut String, members: &[Member<'_>]) -> Result<(), Error> {
    let mut sorted = BTreeMap::new();
    for member in members {
        let units: Vec<u16> = member.key.encode_utf16().collect();
        if sorted.insert(units, member).is_some() {
            return Err(Error::Duplicate);
        }
    }
    out.push('{');
    for (n, member) in sorted.into_values().enumerate() {
        if n > 0 {
            out.push(',');
        }
        push_string(out, &member.key)?;
        out.push(':');
        push(out, &member.value)?;
    }
    out.push('}');
    Ok(())
}

/// RFC 8785, 3.2.2.2.
fn push_string(out: &mut String, text: &str) -> Result<(), Error> {
    out.push('"');
    for c in text.chars() {
        match c {
            char::REPLACEMENT_CHARACTER => return Err(Error::Text),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\u{1f}' => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}

/// RFC 8785, 3.2.2.3: as ECMAScript writes the double that is nearest to it; ECMA-262, Number::toString.
fn number(written: &str) -> Result<String, Error> {
    let value: f64 = written.parse().map_err(|_| Error::Number)?;
    if !value.is_finite() {
        return Err(Error::Number);
    }
    if value == 0.0 {
        return Ok("0".to_owned());
    }
    // It has the fewest digits that lead back to the same double, and of two that are equally near the even ones. The
    // standard library takes the greater ones.
    let shortest = serde_json::to_string(&value.abs()).map_err(|_| Error::Number)?;
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().map_err(|_| Error::Number)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let zeros = all.len().saturating_sub(digits.len());
    let point = offset(whole.len()).saturating_sub(offset(zeros)).saturating_add(exponent);
    let sign = if value < 0.0 { "-" } else { "" };
    Ok(format!("{sign}{}", lay_out(digits.trim_end_matches('0'), point)))
}

/// Digits with the point after as many of them; ECMA-262, Number::toString, steps 6 to 12.
fn lay_out(digits: &str, point: i32) -> String {
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let count = offset(digits.len());
    let (before, after) =
        digits.split_at_checked(usize::try_from(point).unwrap_or_default()).unwrap_or((digits, ""));
    if (1..=21).contains(&point) {
        let fraction = if after.is_empty() { String::new() } else { format!(".{after}") };
        return format!("{before}{}{fraction}", zeros(point.saturating_sub(count)));
    }
    if (-5..=0).contains(&point) {
        return format!("0.{}{digits}", zeros(point.saturating_neg()));
    }
    let (first, rest) = digits.split_at_checked(1).unwrap_or((digits, ""));
    let fraction = if rest.is_empty() { String::new() } else { format!(".{rest}") };
    format!("{first}{fraction}e{:+}", point.saturating_sub(1))
}

/// A number of digits, which are at most some hundreds.
fn offset(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Error, text};
    use crate::json;
    use crate::verify::PAYLOAD;

    fn canonical(written: &str) -> Result<String, Error> {
        text(&json::parse(written.as_bytes(), PAYLOAD).unwrap())
    }

    // Rule C-21. The samples of RFC 8785, appendix B, which gives each double by its bits.
    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        for (bits, written) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            // Seventeen digits name every double.
            let exact = format!("{:.17e}", f64::from_bits(bits));
            assert_eq!(canonical(&exact).as_deref(), Ok(written), "{bits:016x}");
            assert_eq!(canonical(written).as_deref(), Ok(written), "{written}");
        }
    }

    // Rule C-21: every canonical number is a fixed point, and names the same double.
    #[test]
    fn numbers_keep_their_value() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            let value = f64::from_bits(bits);
            if !value.is_finite() {
                continue;
            }
            let written = canonical(&format!("{value:e}")).unwrap();
            assert_eq!(written.parse::<f64>().unwrap(), value, "{written}");
            assert_eq!(canonical(&written).as_deref(), Ok(&*written));
            let magnitude = value.abs();
            assert_eq!(written.contains('e'), !(1e-6..1e21).contains(&magnitude), "{written}");
        }
    }

    // Rule C-21. The first rows are from RFC 8785, 3.2.2 and 3.2.3.
    #[test]
    fn a_value_has_one_text() {
        for (written, wanted) in [
            (
                r#"[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001]"#,
                Ok("[333333333.3333333,1e+30,4.5,0.002,1e-27]"),
            ),
            (
                r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#,
                Ok("\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""),
            ),
            ("[ null , true,\tfalse ]", Ok("[null,true,false]")),
            (
                r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#,
                Ok("{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}"),
            ),
            (r#"{"b":{"d":1,"c":[]},"a":{}}"#, Ok(r#"{"a":{},"b":{"c":[],"d":1}}"#)),
            ("-0.0", Ok("0")),
            ("1e999", Err(Error::Number)),
            ("-1e999", Err(Error::Number)),
            ("1e-999", Ok("0")),
            (r#"{"a":1,"a":1}"#, Err(Error::Duplicate)),
            (r#"{"a":1,"\u0061":1}"#, Err(Error::Duplicate)),
            (r#"{"b":[{"a":1,"a":1}]}"#, Err(Error::Duplicate)),
            (r#""\ud800""#, Err(Error::Text)),
            (r#"{"\udfff":1}"#, Err(Error::Text)),
            ("\"\u{fffd}\"", Err(Error::Text)),
        ] {
            assert_eq!(canonical(written).as_deref().map_err(|e| *e), wanted, "{written}");
        }
    }
}
