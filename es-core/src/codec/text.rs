//! JSON text that every database and every decoder accepts.

use std::ops::Range;

use crate::limits::MAX_NESTING;

/// The longest number, in bytes: an `f64` whose digits are all written out has fewer.
const MAX_NUMBER_BYTES: usize = 1_100;

/// The largest exponent of a number, positive or negative: an `f64` holds no number beyond it.
const MAX_EXPONENT: u32 = 400;

/// Fewer digits without an exponent are always a number that an `f64` holds.
const SHORT_NUMBER_BYTES: usize = 300;

/// What is wrong with a JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadText {
    NotUtf8,
    NotJson(String),
    Nul,
    Number,
    TooDeep,
}

/// Checks a text that another program wrote.
pub(crate) fn check(text: &[u8]) -> Result<(), BadText> {
    if std::str::from_utf8(text).is_err() {
        return Err(BadText::NotUtf8);
    }
    let not_json = |reason: serde_json::Error| BadText::NotJson(reason.to_string());
    serde_json::from_slice::<serde::de::IgnoredAny>(text).map_err(not_json)?;
    scan(text, check_string, check_number)
}

/// Checks how deep a text is nested that serde wrote.
pub(super) fn check_nesting(text: &[u8]) -> Result<(), BadText> {
    // Few texts open so many lists and objects.
    if memchr::memchr2_iter(b'{', b'[', text).nth(MAX_NESTING).is_none() {
        return Ok(());
    }
    scan(text, |_| Ok(()), |_| Ok(()))
}

/// Reads a JSON text once; its grammar has been checked.
fn scan(
    text: &[u8],
    string: impl Fn(&[u8]) -> Result<(), BadText>,
    number: impl Fn(&[u8]) -> Result<(), BadText>,
) -> Result<(), BadText> {
    let (mut at, mut depth) = (0, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(BadText::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let content = content_of_string(text, at + 1);
                at = content.end;
                string(&text[content])?;
            }
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let length = text[at..].iter().take_while(|byte| is_part(byte)).count();
                number(&text[at..at + length])?;
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// From `start`, after the opening quote, to the closing one.
fn content_of_string(text: &[u8], start: usize) -> Range<usize> {
    let mut end = start;
    while let Some(found) = text.get(end..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        end += found;
        if text[end] == b'"' {
            return start..end;
        }
        end += 2;
    }
    start..text.len()
}

/// Postgres' `jsonb` refuses `\u0000` and lone surrogates, which the grammar allows.
fn check_string(content: &[u8]) -> Result<(), BadText> {
    let mut rest = content;
    while let Some(escape) = memchr::memchr(b'\\', rest) {
        rest = &rest[escape + 1..];
        let Some(unit) = code_unit(rest) else {
            // Another escape: what follows the backslash may be a backslash itself.
            rest = rest.get(1..).unwrap_or_default();
            continue;
        };
        rest = &rest[5..];
        if (0xd800..0xdc00).contains(&unit)
            && let Some(low) = rest.strip_prefix(b"\\").and_then(code_unit)
            && (0xdc00..0xe000).contains(&low)
        {
            rest = &rest[6..];
            continue;
        }
        match unit {
            0 => return Err(BadText::Nul),
            0xd800..0xe000 => return Err(BadText::NotJson("a string holds half of a surrogate pair".to_owned())),
            _ => {}
        }
    }
    Ok(())
}

/// The code unit of an escape whose backslash was just read.
fn code_unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(b"u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A number that an `f64` holds is one that `jsonb` holds too, if its exponent and its length are no larger than these need.
fn check_number(number: &[u8]) -> Result<(), BadText> {
    let exponent = memchr::memchr2(b'e', b'E', number);
    if exponent.is_none() && number.len() <= SHORT_NUMBER_BYTES {
        return Ok(());
    }
    let small = |digits: &[u8]| {
        let digits = digits.strip_prefix(b"-").or(digits.strip_prefix(b"+")).unwrap_or(digits);
        let exponent = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok());
        exponent.is_some_and(|exponent| exponent <= MAX_EXPONENT)
    };
    let holds = |number: &str| number.parse::<f64>().is_ok_and(f64::is_finite);
    if number.len() <= MAX_NUMBER_BYTES
        && exponent.is_none_or(|at| small(&number[at + 1..]))
        && std::str::from_utf8(number).is_ok_and(holds)
    {
        Ok(())
    } else {
        Err(BadText::Number)
    }
}
