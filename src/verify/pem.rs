//! PEM as the reference reads it: Go's `encoding/pem`, found by experiment with Go 1.26 (rule C-3).

use std::str;

use crate::json;

/// What begins the first line of a block; RFC 7468, 2.
const BEGIN: &[u8] = b"-----BEGIN ";

/// What begins the last line of a block; RFC 7468, 2.
const END: &[u8] = b"-----END ";

/// What ends the first and the last line of a block; RFC 7468, 2.
const DASHES: &[u8] = b"-----";

/// A PEM block; RFC 7468, 2.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::verify) struct Block<'a> {
    /// What stands between `-----BEGIN ` and `-----`: any bytes but a line end.
    pub label: &'a [u8],
    /// What the base64 decodes to, possibly nothing.
    pub contents: Vec<u8>,
    /// Whether lines with a colon precede the base64.
    pub has_headers: bool,
    /// What follows the END line and its line end.
    pub rest: &'a [u8],
}

/// All blocks, in order.
pub(in crate::verify) fn blocks(bytes: &[u8]) -> impl Iterator<Item = Block<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let block = first_block(rest)?;
        rest = block.rest;
        Some(block)
    })
}

/// The first block that is whole; what is not is skipped, up to its END line (rule C-3).
///
/// An END line closes the last BEGIN before it, so that a stray BEGIN line costs nothing.
pub(in crate::verify) fn first_block(bytes: &[u8]) -> Option<Block<'_>> {
    let mut rest = bytes;
    loop {
        let end = rest.windows(END.len() + 1).position(|w| w.strip_prefix(b"\n") == Some(END))?;
        let (before, after) = rest.split_at_checked(end + 1)?;
        rest = after.strip_prefix(END)?;
        let Some((label, body)) = opening(before) else { continue };
        let (line, next) = split_line(rest);
        let base64 = skip_headers(body);
        if base64.is_empty() {
            // The END line follows at once and would be a header too: the reference gives up here.
            if line.contains(&b':') {
                return None;
            }
            // Headers must be followed by something, at least by a blank line.
            if !body.is_empty() {
                continue;
            }
        }
        if line.strip_suffix(DASHES) != Some(label) {
            continue;
        }
        if let Some(contents) = decode(base64) {
            let has_headers = base64.len() != body.len();
            return Some(Block { label, contents, has_headers, rest: next });
        }
    }
}

/// The label of the last BEGIN, and what follows its line.
fn opening(before: &[u8]) -> Option<(&[u8], &[u8])> {
    let begin = before.windows(BEGIN.len()).rposition(|w| w == BEGIN)?;
    let (prior, block) = before.split_at_checked(begin)?;
    if !matches!(prior.last(), None | Some(b'\n')) {
        return None;
    }
    let (line, body) = split_line(block.strip_prefix(BEGIN)?);
    Some((line.strip_suffix(DASHES)?, body))
}

/// Drops the lines that hold a colon from the start of `body`.
fn skip_headers(mut body: &[u8]) -> &[u8] {
    loop {
        let (line, next) = split_line(body);
        if !line.contains(&b':') {
            return body;
        }
        body = next;
    }
}

/// The first line without its line end, LF or CRLF, and the blanks before that; and what follows it.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = text.splitn(2, |byte| *byte == b'\n');
    let mut line = parts.next().unwrap_or_default();
    let next = parts.next();
    if next.is_some() {
        line = line.strip_suffix(b"\r").unwrap_or(line);
    }
    while let [shorter @ .., b' ' | b'\t'] = line {
        line = shorter;
    }
    (line, next.unwrap_or_default())
}

/// Base64 with blanks and line ends anywhere.
fn decode(body: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(body).ok()?.replace([' ', '\t', '\r', '\n'], "");
    json::decode_base64(&text)
}

#[cfg(test)]
mod tests {
    use super::first_block;

    const GOOD: &str = "-----BEGIN X-----\nYQ==\n-----END X-----\n";

    /// What Go 1.26 says of each: the label and the contents of the first block, or none.
    #[test]
    fn blocks_are_found_as_the_reference_finds_them() {
        let found = Some(("X", "a"));
        let empty = Some(("X", ""));
        for (text, expected) in [
            // Where the lines begin and end.
            (GOOD, found),
            ("-----BEGIN X-----\nYQ==\n-----END X-----", found),
            ("-----BEGIN X-----\r\nYQ==\r\n-----END X-----\r\n", found),
            ("-----BEGIN X-----\rYQ==\r-----END X-----\r", None),
            ("-----BEGIN X-----\r\r\nYQ==\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYQ==\n-----END X-----\r", None),
            ("junk\n-----BEGIN X-----\nYQ==\n-----END X-----\n", found),
            ("junk-----BEGIN X-----\nYQ==\n-----END X-----\n", None),
            (" -----BEGIN X-----\nYQ==\n-----END X-----\n", None),
            ("#-----BEGIN X-----\nYQ==\n-----END X-----\n", None),
            ("------BEGIN X-----\nYQ==\n-----END X-----\n", None),
            ("\u{feff}-----BEGIN X-----\nYQ==\n-----END X-----\n", None),
            ("\u{feff}\n-----BEGIN X-----\nYQ==\n-----END X-----\n", found),
            ("-----BEGIN X----- \t\nYQ==\n-----END X----- \t\r\n", found),
            ("-----BEGIN X-----\nYQ==\n-----END X-----\r \n", None),
            ("-----BEGIN X----- x\nYQ==\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYQ==\n-----END X-----x\n", None),
            ("-----BEGIN X-----\nYQ==\n-----END X-----\0", None),
            ("-----BEGIN X-----\nYQ==\n -----END X-----\n", None),
            ("-----BEGIN X-----\nYQ==-----END X-----\n", None),
            ("-----BEGIN X-----YQ==-----END X-----", None),
            ("-----begin X-----\nYQ==\n-----end X-----\n", None),
            ("-----BEGIN X-----\nYQ==\n", None),
            ("-----END X-----\n", None),
            ("", None),
            // The label.
            ("-----BEGIN X Y-----\nYQ==\n-----END X Y-----\n", Some(("X Y", "a"))),
            ("-----BEGIN  X -----\nYQ==\n-----END  X -----\n", Some((" X ", "a"))),
            ("-----BEGIN X------\nYQ==\n-----END X------\n", Some(("X-", "a"))),
            ("-----BEGIN -----\nYQ==\n-----END -----\n", Some(("", "a"))),
            ("-----BEGIN-----\nYQ==\n-----END-----\n", None),
            ("-----BEGIN X -----\nYQ==\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYQ==\n-----END Y-----\n", None),
            // The body.
            ("-----BEGIN X-----\n-----END X-----\n", empty),
            ("-----BEGIN X-----\r\n-----END X-----\r\n", empty),
            ("-----BEGIN X-----\n\n-----END X-----\n", empty),
            ("-----BEGIN X-----\n \tY\n\nQ \r=\n=\n\n-----END X-----\n", found),
            ("-----BEGIN X-----\nYR==\n-----END X-----\n", found),
            ("-----BEGIN X-----\nYQ=\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYQ\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYQ==YQ==\n-----END X-----\n", None),
            ("-----BEGIN X-----\n_-8=\n-----END X-----\n", None),
            ("-----BEGIN X-----\nY\u{b}Q==\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYQ==\0\n-----END X-----\n", None),
            // Headers.
            ("-----BEGIN X-----\nK: v\n:\n\nYQ==\n-----END X-----\n", found),
            ("-----BEGIN X-----\nK: v\nYQ==\n-----END X-----\n", found),
            ("-----BEGIN X-----\nK: v\n\n-----END X-----\n", empty),
            ("-----BEGIN X-----\nK: v\n-----END X-----\n", None),
            ("-----BEGIN X-----\nK: v\n w\n\nYQ==\n-----END X-----\n", None),
            ("-----BEGIN X-----\n\nK: v\nYQ==\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYQ==\nK: v\n-----END X-----\n", None),
            ("-----BEGIN X:Y-----\nYQ==\n-----END X:Y-----\n", Some(("X:Y", "a"))),
            // BEGIN and END that do not pair.
            ("-----BEGIN Y-----\n-----BEGIN X-----\nYQ==\n-----END X-----\n", found),
            ("-----BEGIN X-----\nYg==\n-----BEGIN X-----\nYQ==\n-----END X-----\n", found),
            ("-----BEGIN Y-----\n-----BEGIN X-----\nYQ==\n-----END X-----\n-----END Y-----\n", found),
            ("-----BEGIN X-----\nYg==\n # -----BEGIN X\n-----END X-----\n", None),
            ("-----BEGIN X-----\nYg==\n-----END -----BEGIN X-----\nYQ==\n-----END X-----\n", found),
        ] {
            let block = first_block(text.as_bytes());
            let block = block.as_ref().map(|b| (b.label, b.contents.as_slice()));
            assert_eq!(block, expected.map(|(l, c)| (l.as_bytes(), c.as_bytes())), "{text:?}");
        }
    }

    /// Whether Go 1.26 still finds the good block that follows each.
    #[test]
    fn a_bad_block_is_skipped() {
        for (text, goes_on) in [
            ("-----END Y-----\n", true),
            ("-----BEGIN Y-----\n", true),
            ("-----BEGIN Y-----\nYg==\n-----END Z-----\n", true),
            ("-----BEGIN Y-----\nYg==\n-----END Y-----trail\n", true),
            ("-----BEGIN Y-----\n!\n-----END Y-----\n", true),
            ("-----BEGIN Y\nYg==\n-----END Y-----\n", true),
            ("-----BEGIN Y-----\nK: v\n-----END Y-----\n", true),
            ("-----BEGIN Y-----\nK: v\n-----END Y:-----\n", false),
            ("-----BEGIN Y:-----\n-----END Y:-----\n", false),
        ] {
            let text = format!("{text}{GOOD}");
            assert_eq!(first_block(text.as_bytes()).is_some_and(|b| b.label == b"X"), goes_on, "{text:?}");
        }
    }

    #[test]
    fn a_label_need_not_be_utf8() {
        let block = first_block(b"-----BEGIN \xff-----\nYQ==\n-----END \xff-----\n").unwrap();
        assert_eq!(block.label, b"\xff");
    }

    /// In quadratic time this would take hours.
    #[test]
    fn hostile_mebibytes_take_linear_time() {
        for unit in [
            "\n-----END ",
            "-----BEGIN ",
            "-----BEGIN X-----\n",
            "-----BEGIN X-----\n!\n-----END X-----\n",
            "-----BEGIN X-----\n:\n-----END X-----\n",
            ":\n",
            " ",
        ] {
            let body = unit.repeat((4 << 20) / unit.len());
            let text = format!("-----BEGIN X-----{body}\n-----END X----- {body}");
            let _ = first_block(text.as_bytes());
        }
    }
}
