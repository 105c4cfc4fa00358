//! Strict JSON with byte spans.
//!
//! RFC 8259, and what the reference's decoder adds to it: bytes that are not UTF-8 and unpaired
//! surrogates become U+FFFD (rule P-3). Objects keep every member, repeated ones too, so that each reader
//! decides what a repetition means. The depth is limited, so that parsing cannot exhaust the stack.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::diagnostic::Span;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Value<'a> {
    /// The bytes of the value.
    pub span: Span,
    /// The value.
    pub data: Data<'a>,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is written.
    Number(&'a str),
    /// A string, escapes resolved.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object, members in order, repetitions kept.
    Object(Vec<Member<'a>>),
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member<'a> {
    /// The name, escapes resolved.
    pub key: Cow<'a, str>,
    /// The bytes of the name, quotes included.
    pub key_span: Span,
    /// The value.
    pub value: Value<'a>,
}

/// How much of a text may become a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nesting. Each costs stack.
    pub depth: usize,
    /// Values and members. Each costs up to 90 bytes, and may stand for two.
    pub values: usize,
}

/// Where and why a text is not JSON, or is more than may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Error {
    /// The place.
    pub span: Span,
    /// What was found or wanted there.
    pub reason: &'static str,
    /// Whether the text may well be JSON, but is beyond the [`Limits`].
    pub limit: bool,
}

/// Two members that a lenient reader could take for one, or one that only such a reader would understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a member is there twice, or is misspelled")]
pub struct Ambiguous;

impl<'a> Value<'a> {
    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::Array(_) | Data::Object(_) => None,
        }
    }

    /// The members, if it is an object.
    pub fn members(&self) -> Option<&[Member<'a>]> {
        match &self.data {
            Data::Object(members) => Some(members),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::String(_) | Data::Array(_) => None,
        }
    }

    /// The elements, if it is an array.
    pub fn elements(&self) -> Option<&[Value<'a>]> {
        match &self.data {
            Data::Array(elements) => Some(elements),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::String(_) | Data::Object(_) => None,
        }
    }

    /// The member of that name, none if it is absent or null.
    ///
    /// Readers in Go take names in any case, and the last of several. What they could understand otherwise than
    /// a strict reader is refused.
    pub fn member(&self, name: &str) -> Result<Option<&Value<'a>>, Ambiguous> {
        let mut same = self.members().unwrap_or_default().iter().filter(|member| folds(&member.key, name));
        match (same.next(), same.next()) {
            (None, _) => Ok(None),
            (Some(member), None) if member.key == name => Ok(Some(&member.value).filter(|v| !v.is_null())),
            (Some(_), _) => Err(Ambiguous),
        }
    }

    /// Base64, or an array of numbers from 0 to 255, in both of which null is nothing (rule P-13).
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match &self.data {
            Data::Null => Some(Vec::new()),
            Data::String(text) => decode_base64(text),
            Data::Array(elements) => elements.iter().map(Self::byte).collect(),
            Data::Bool(_) | Data::Number(_) | Data::Object(_) => None,
        }
    }

    fn byte(&self) -> Option<u8> {
        match &self.data {
            Data::Number(written) => written.parse().ok(),
            Data::Null => Some(0),
            Data::Bool(_) | Data::String(_) | Data::Array(_) | Data::Object(_) => None,
        }
    }

    /// Whether every number in it, at any depth, is within the range of a double.
    pub fn has_finite_numbers(&self) -> bool {
        match &self.data {
            Data::Number(written) => written.parse::<f64>().is_ok_and(f64::is_finite),
            Data::Array(elements) => elements.iter().all(Self::has_finite_numbers),
            Data::Object(members) => members.iter().all(|member| member.value.has_finite_numbers()),
            Data::Null | Data::Bool(_) | Data::String(_) => true,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.data == Data::Null
    }
}

/// Whether Go's decoder takes `key` for `name`, which is ASCII: Unicode simple folding.
pub fn folds(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// Reads one JSON value with nothing but white space around it.
pub fn parse(text: &[u8], limits: Limits) -> Result<Value<'_>, Error> {
    let mut parser = Parser { text, at: 0, values_left: limits.values };
    parser.skip_space();
    let value = parser.value(limits.depth)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.error("there is more after the end of the JSON value")),
    }
}

/// Decodes base64 as the reference does: standard alphabet, padding, line ends ignored (rule P-13).
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT_BITS: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
    );
    if text.contains(['\r', '\n']) {
        let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        LENIENT_BITS.decode(joined).ok()
    } else {
        LENIENT_BITS.decode(text).ok()
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    values_left: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        let start = self.at;
        self.values_left =
            self.values_left.checked_sub(1).ok_or_else(|| self.beyond("there are too many values"))?;
        let data = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Data::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Data::Number(self.number()?),
            Some(b't') => self.word("true", Data::Bool(true))?,
            Some(b'f') => self.word("false", Data::Bool(false))?,
            Some(b'n') => self.word("null", Data::Null)?,
            Some(0xef) if self.at == 0 => return Err(self.error("a byte order mark is not allowed")),
            Some(b'/') => return Err(self.error("comments are not allowed in JSON")),
            Some(_) => return Err(self.error("a value was expected here")),
            None => return Err(self.error("the text ends where a value was expected")),
        };
        Ok(Value { span: Span { start, end: self.at }, data })
    }

    fn object(&mut self, depth: usize) -> Result<Data<'a>, Error> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.beyond("nested too deeply"))?;
        self.bump();
        let mut members = Vec::new();
        self.skip_space();
        if self.eat(b'}') {
            return Ok(Data::Object(members));
        }
        loop {
            self.skip_space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.error(match self.peek() {
                    Some(b'}') => "there is a comma before the \"}\"",
                    Some(b'/') => "comments are not allowed in JSON",
                    Some(_) => "a member name in double quotes was expected here",
                    None => "the text ends inside an object",
                }));
            }
            let key = self.string()?;
            let key_span = Span { start, end: self.at };
            self.skip_space();
            if !self.eat(b':') {
                return Err(self.error("\":\" was expected after the member name"));
            }
            self.skip_space();
            let value = self.value(depth)?;
            members.push(Member { key, key_span, value });
            self.skip_space();
            if self.eat(b'}') {
                return Ok(Data::Object(members));
            }
            if !self.eat(b',') {
                return Err(self.error(match self.peek() {
                    Some(_) => "\",\" or \"}\" was expected after the member",
                    None => "the text ends inside an object",
                }));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Data<'a>, Error> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.beyond("nested too deeply"))?;
        self.bump();
        let mut elements = Vec::new();
        self.skip_space();
        if self.eat(b']') {
            return Ok(Data::Array(elements));
        }
        loop {
            self.skip_space();
            elements.push(self.value(depth)?);
            self.skip_space();
            if self.eat(b']') {
                return Ok(Data::Array(elements));
            }
            if !self.eat(b',') {
                return Err(self.error(match self.peek() {
                    Some(_) => "\",\" or \"]\" was expected after the element",
                    None => "the text ends inside an array",
                }));
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.bump();
        let start = self.at;
        let plain = self.rest().iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
        self.at = self.at.saturating_add(plain.unwrap_or(self.rest().len()));
        let run = self.text.get(start..self.at).unwrap_or_default();
        if self.peek() == Some(b'"') {
            self.bump();
            return Ok(lossy(run));
        }
        let mut out = lossy(run).into_owned();
        loop {
            let start = self.at;
            match self.peek() {
                None => return Err(self.error("the text ends inside a string")),
                Some(b'"') => {
                    self.bump();
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(0..=0x1f) => {
                    return Err(self.error("a control character in a string must be written as an escape"));
                }
                Some(_) => {
                    let run = self.rest().iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
                    self.at = self.at.saturating_add(run.unwrap_or(self.rest().len()));
                    out.push_str(&lossy(self.text.get(start..self.at).unwrap_or_default()));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        self.bump();
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) | None => return Err(self.error("this is no escape sequence of JSON")),
        };
        self.bump();
        Ok(c)
    }

    /// `uXXXX`, joined with a following low surrogate; an unpaired one is U+FFFD.
    fn unicode_escape(&mut self) -> Result<char, Error> {
        self.bump();
        let high = self.hex4()?;
        if let Some(c) = char::from_u32(high) {
            return Ok(c);
        }
        let after_high = self.at;
        if (0xd800..0xdc00).contains(&high) && self.rest().starts_with(b"\\u") {
            self.at = self.at.saturating_add(2);
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = after_high;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let digits = self.rest().get(..4).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let value = digits
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u32::from_str_radix(d, 16).ok())
            .ok_or_else(|| self.error("four hexadecimal digits were expected after \"\\u\""))?;
        self.at = self.at.saturating_add(4);
        Ok(value)
    }

    fn number(&mut self) -> Result<&'a str, Error> {
        let start = self.at;
        self.eat(b'-');
        if self.eat(b'0') {
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error("a number must not begin with 0"));
            }
        } else {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        std::str::from_utf8(written).map_err(|_| self.error("this is not a number"))
    }

    fn digits(&mut self) -> Result<(), Error> {
        let count = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        self.at = self.at.saturating_add(count);
        if count == 0 { Err(self.error("a digit was expected here")) } else { Ok(()) }
    }

    fn word(&mut self, word: &str, data: Data<'a>) -> Result<Data<'a>, Error> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.error("a value was expected here"));
        }
        self.at = self.at.saturating_add(word.len());
        Ok(data)
    }

    fn skip_space(&mut self) {
        let count = self.rest().iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.at = self.at.saturating_add(count);
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn bump(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.bump();
        }
        found
    }

    fn error(&self, reason: &'static str) -> Error {
        let end = self.at.saturating_add(1).min(self.text.len());
        Error { span: Span { start: self.at.min(end), end }, reason, limit: false }
    }

    fn beyond(&self, reason: &'static str) -> Error {
        Error { limit: true, ..self.error(reason) }
    }
}

/// The text, with U+FFFD for each byte that is not UTF-8.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut out = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                out.push_str(chunk.valid());
                out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(depth: usize) -> Limits {
        Limits { depth, values: 1_000 }
    }

    fn plain(value: &Value<'_>) -> serde_json::Value {
        match &value.data {
            Data::Null => serde_json::Value::Null,
            Data::Bool(b) => (*b).into(),
            Data::Number(n) => serde_json::from_str(n).unwrap(),
            Data::String(s) => s.clone().into_owned().into(),
            Data::Array(items) => items.iter().map(plain).collect(),
            Data::Object(members) => {
                members.iter().map(|m| (m.key.clone().into_owned(), plain(&m.value))).collect()
            }
        }
    }

    #[test]
    fn accepts_and_means_what_serde_json_does() {
        for text in [
            "{}",
            "[]",
            "null",
            " true ",
            "-0",
            "0.5e-3",
            "1E+2",
            "\"\"",
            "\"a\\u00e9\\ud83d\\ude00\\n\\/\"",
            "{\"a\":[1,{\"b\":null}],\"a\":2}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "nul",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"",
            "{\"a\"",
            "{\"a\":",
            "[",
            "",
            " ",
            "1 2",
            "\u{feff}1",
            "// c\n1",
            "NaN",
            "'a'",
            "{\"a\":1 \"b\":2}",
            "[1 2]",
            "\0",
            "1\0",
            "\"\u{7f}\u{2028}\"",
        ] {
            let ours = parse(text.as_bytes(), limits(128));
            let theirs = serde_json::from_str::<serde_json::Value>(text);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{text:?}: {ours:?}");
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                assert_eq!(plain(&ours), theirs, "{text:?}");
            }
        }
    }

    #[test]
    fn single_byte_changes_never_part_us_from_serde_json() {
        let text = br#"{"a":[1,-2.5e3,"x\u0041\n",null],"b":{"c":true,"d":false}}"#;
        for at in 0..text.len() {
            for byte in 0..=255 {
                let mut changed = text.to_vec();
                changed[at] = byte;
                if std::str::from_utf8(&changed).is_err() {
                    continue;
                }
                let ours = parse(&changed, limits(128)).is_ok();
                let theirs = serde_json::from_slice::<serde_json::Value>(&changed);
                let surrogate = matches!(&theirs, Err(e) if e.to_string().contains("surrogate"));
                assert!(surrogate || ours == theirs.is_ok(), "{:?}", String::from_utf8_lossy(&changed));
            }
        }
    }

    #[test]
    fn bad_unicode_becomes_replacement_characters() {
        for (text, wanted) in [
            (&b"\"\\ud800\""[..], "\u{fffd}"),
            (b"\"\\udc00x\"", "\u{fffd}x"),
            (b"\"\\ud800\\u0041\"", "\u{fffd}A"),
            (b"\"\\ud800\\ud83d\\ude00\"", "\u{fffd}\u{1f600}"),
            (b"\"\xff\xe2\x82x\"", "\u{fffd}\u{fffd}\u{fffd}x"),
        ] {
            assert_eq!(parse(text, limits(1)).unwrap().text(), Some(wanted));
        }
    }

    #[test]
    fn depth_is_limited_without_recursion_trouble() {
        assert!(parse(b"[[1]]", limits(2)).is_ok());
        assert_eq!(parse(b"[[1]]", limits(1)).unwrap_err().reason, "nested too deeply");
        assert!(parse(&vec![b'['; 1 << 20], limits(64)).is_err());
    }

    #[test]
    fn values_are_counted() {
        let count =
            |text: &[u8], values| parse(text, Limits { depth: 8, values }).map(|_| ()).map_err(|e| e.limit);
        assert!(count(b"[1,{\"a\":2}]", 4).is_ok());
        assert_eq!(count(b"[1,{\"a\":2}]", 3), Err(true));
        assert_eq!(count(b"[1,{\"a\":2]", 4), Err(false));
    }

    #[test]
    fn members_that_a_lenient_reader_could_mistake_are_refused() {
        for (text, wanted) in [
            (r#"{"keys":1}"#, Ok(true)),
            (r#"{"other":1}"#, Ok(false)),
            (r#"{"keys":null}"#, Ok(false)),
            (r#"{"Keys":1}"#, Err(Ambiguous)),
            (r#"{"keys":1,"KEYS":2}"#, Err(Ambiguous)),
            (r#"{"keys":1,"keys":1}"#, Err(Ambiguous)),
            ("{\"key\u{17f}\":1}", Err(Ambiguous)),
            ("{\"\u{212a}eys\":1,\"keys\":1}", Err(Ambiguous)),
        ] {
            let value = parse(text.as_bytes(), limits(2)).unwrap();
            assert_eq!(value.member("keys").map(|v| v.is_some()), wanted, "{text}");
        }
    }

    #[test]
    fn spans_point_at_names_and_values() {
        let text = br#" {"k" : [ 12 ]}"#;
        let value = parse(text, limits(8)).unwrap();
        let member = &value.members().unwrap()[0];
        let cut = |span: Span| std::str::from_utf8(&text[span.start..span.end]).unwrap();
        assert_eq!(cut(member.key_span), "\"k\"");
        assert_eq!(cut(member.value.elements().unwrap()[0].span), "12");
        assert_eq!(cut(value.span), r#"{"k" : [ 12 ]}"#);
    }

    #[test]
    fn base64_is_strict_but_for_line_ends_and_trailing_bits() {
        for (text, ok) in [
            ("YQ==", true),
            ("Y\r\nQ==\n", true),
            ("YR==", true),
            ("YQ=", false),
            ("YQ", false),
            ("Y Q=", false),
            ("_-8=", false),
            ("", true),
        ] {
            assert_eq!(decode_base64(text).is_some(), ok, "{text:?}");
        }
    }
}
