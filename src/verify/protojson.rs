//! [`Message`]: objects of ProtoJSON, read so that no other reader can understand them otherwise.
//!
//! Names are in lowerCamelCase, null is absence, 64-bit numbers may be strings, bytes are base64 of the standard
//! alphabet, padded, in its only form; line ends in it are ignored, as by Go.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::diagnostic::clip;
use crate::json::{self, Data, Member, Value};

/// The members of an object.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Message<'v, 'a> {
    /// What it is, for messages.
    name: &'static str,
    members: &'v [Member<'a>],
}

impl<'v, 'a> Message<'v, 'a> {
    /// An object with no other members than `known`.
    pub(in crate::verify) fn closed(
        name: &'static str,
        value: &'v Value<'a>,
        known: &[&str],
    ) -> Result<Self, String> {
        let message = Self::object(name, value)?;
        match message.members.iter().find(|member| !known.contains(&&*member.key)) {
            None => Ok(message),
            Some(member) => Err(format!("{name} has the unknown member \"{}\"", clip(&member.key))),
        }
    }

    /// An object that may have other members, but none that differs from one of `known` in case or underscores only.
    pub(in crate::verify) fn open(
        name: &'static str,
        value: &'v Value<'a>,
        known: &[&str],
    ) -> Result<Self, String> {
        let message = Self::object(name, value)?;
        let plain = |text: &str| text.replace('_', "");
        let misspelled = |key: &str| {
            !known.contains(&key) && known.iter().any(|known| json::folds(&plain(key), &plain(known)))
        };
        match message.members.iter().find(|member| misspelled(&member.key)) {
            None => Ok(message),
            Some(member) => Err(format!("{name} has the misspelled member \"{}\"", clip(&member.key))),
        }
    }

    fn object(name: &'static str, value: &'v Value<'a>) -> Result<Self, String> {
        let members = value.members().ok_or_else(|| format!("{name} is not an object"))?;
        Ok(Self { name, members })
    }

    /// The member, none if it is absent or null.
    pub(in crate::verify) fn get(&self, key: &str) -> Option<&'v Value<'a>> {
        self.members
            .iter()
            .find(|member| member.key == key)
            .map(|m| &m.value)
            .filter(|value| !value.is_null())
    }

    /// The member, which must be there.
    pub(in crate::verify) fn required(&self, key: &str) -> Result<&'v Value<'a>, String> {
        self.get(key).ok_or_else(|| format!("{} has no \"{key}\"", self.name))
    }

    /// The elements of an array; none if it is absent.
    pub(in crate::verify) fn list(&self, key: &str) -> Result<&'v [Value<'a>], String> {
        match self.get(key) {
            None => Ok(&[]),
            Some(value) => value.elements().ok_or_else(|| self.wrong(key, "an array")),
        }
    }

    /// A string.
    pub(in crate::verify) fn text(&self, key: &str) -> Result<Option<&'v str>, String> {
        self.get(key).map(|value| value.text().ok_or_else(|| self.wrong(key, "a string"))).transpose()
    }

    /// A string that must be there.
    pub(in crate::verify) fn required_text(&self, key: &str) -> Result<&'v str, String> {
        self.required(key)?.text().ok_or_else(|| self.wrong(key, "a string"))
    }

    /// Bytes.
    pub(in crate::verify) fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        decode(text).map(Some).ok_or_else(|| self.wrong(key, "canonical base64"))
    }

    /// Bytes that must be there, and at least one.
    pub(in crate::verify) fn required_bytes(&self, key: &str) -> Result<Vec<u8>, String> {
        self.required(key)?;
        match self.bytes(key)? {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            Some(_) | None => Err(format!("\"{key}\" of {} is empty", self.name)),
        }
    }

    /// A number that is not negative, 0 if it is absent.
    pub(in crate::verify) fn number(&self, key: &str) -> Result<u64, String> {
        let written = match self.get(key).map(|value| &value.data) {
            None => return Ok(0),
            Some(Data::Number(written)) => written,
            Some(Data::String(text)) => &**text,
            Some(Data::Null | Data::Bool(_) | Data::Array(_) | Data::Object(_)) => "",
        };
        // Both bounds of a signed 64-bit number: what it holds ends up in one.
        let digits =
            written.bytes().all(|b| b.is_ascii_digit()) && (written == "0" || !written.starts_with('0'));
        written
            .parse()
            .ok()
            .filter(|number| digits && i64::try_from(*number).is_ok())
            .ok_or_else(|| self.wrong(key, "a number from 0 to 2^63-1"))
    }

    fn wrong(&self, key: &str, wanted: &str) -> String {
        format!("\"{key}\" of {} is not {wanted}", self.name)
    }
}

/// No object in `value`, at any depth, has a member twice.
pub(in crate::verify) fn check_unique(value: &Value<'_>) -> Result<(), String> {
    match &value.data {
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::String(_) => Ok(()),
        Data::Array(elements) => elements.iter().try_for_each(check_unique),
        Data::Object(members) => {
            let mut seen = BTreeSet::new();
            for member in members {
                if !seen.insert(&*member.key) {
                    return Err(format!("\"{}\" is there twice", clip(&member.key)));
                }
                check_unique(&member.value)?;
            }
            Ok(())
        }
    }
}

/// Base64 in its only form, line ends left out.
pub(in crate::verify) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.contains(['\r', '\n']) {
        STANDARD.decode(text.replace(['\r', '\n'], "")).ok()
    } else {
        STANDARD.decode(text).ok()
    }
}

/// Base64 as [`decode`] reads it.
pub(in crate::verify) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Message, check_unique, decode};
    use crate::json;
    use crate::verify::PAYLOAD;

    #[test]
    fn base64_has_one_form() {
        for (text, decoded) in [
            ("YQ==", Some(&b"a"[..])),
            ("Y\r\nQ==\n", Some(b"a")),
            ("", Some(b"")),
            ("YR==", None),
            ("YQ", None),
            ("YQ=", None),
            ("YQ== ", None),
            ("_-8=", None),
        ] {
            assert_eq!(decode(text).as_deref(), decoded, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_plain_and_fit() {
        for (text, number) in [
            ("{}", Some(0)),
            (r#"{"n":null}"#, Some(0)),
            (r#"{"n":0}"#, Some(0)),
            (r#"{"n":12}"#, Some(12)),
            (r#"{"n":"9223372036854775807"}"#, Some(i64::MAX.unsigned_abs())),
            (r#"{"n":"9223372036854775808"}"#, None),
            (r#"{"n":-1}"#, None),
            (r#"{"n":"-0"}"#, None),
            (r#"{"n":"+1"}"#, None),
            (r#"{"n":"01"}"#, None),
            (r#"{"n":""}"#, None),
            (r#"{"n":1.0}"#, None),
            (r#"{"n":1e1}"#, None),
            (r#"{"n":true}"#, None),
        ] {
            let value = json::parse(text.as_bytes(), PAYLOAD).unwrap();
            let message = Message::closed("it", &value, &["n"]).unwrap();
            assert_eq!(message.number("n").ok(), number, "{text}");
        }
    }

    #[test]
    fn members_are_known_and_unique() {
        for (text, closed, open, unique) in [
            (r#"{"aB":1}"#, true, true, true),
            (r#"{"aB":1,"c":1}"#, false, true, true),
            (r#"{"ab":1}"#, false, false, true),
            (r#"{"a_b":1}"#, false, false, true),
            (r#"{"aB":1,"aB":1}"#, true, true, false),
            (r#"{"aB":[{"x":1,"\u0078":1}]}"#, true, true, false),
            ("[]", false, false, true),
        ] {
            let value = json::parse(text.as_bytes(), PAYLOAD).unwrap();
            assert_eq!(Message::closed("it", &value, &["aB"]).is_ok(), closed, "{text}");
            assert_eq!(Message::open("it", &value, &["aB"]).is_ok(), open, "{text}");
            assert_eq!(check_unique(&value).is_ok(), unique, "{text}");
        }
    }
}
