//! [`Payload`]: the simple-signing statement inside signatures of both formats; containers-signature(5).

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::json::{self, Data, Member, Value};

use super::{PAYLOAD, Rejection};

/// What a signature says: this digest may be used under this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// `critical.identity.docker-reference`. Any text: matching it is the policy's work.
    pub docker_reference: String,
    /// `critical.image.docker-manifest-digest`.
    pub manifest_digest: Digest,
    /// The members of `optional` that are strings, among which are the annotations of cosign 2.
    pub annotations: BTreeMap<String, String>,
}

/// The name of an image in a signed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedName {
    /// Several subjects have the digest, and not all of them this name: named, and nothing matches (T-16).
    Conflicting(String),
    /// Any text, also an empty one: matching it is the policy's work.
    Named(String),
    /// The statement has no place for a name, or left it out.
    Unnamed,
}

impl SignedName {
    /// The name in an in-toto statement, from those subjects that have the digest of the manifest.
    ///
    /// `None` is a subject without the member `name`; an empty one is `Some`.
    pub fn of_subjects<'a>(names: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut names = names.into_iter();
        let first = names.next().flatten();
        let named = |name: &str| name.to_owned();
        match names.find(|name| *name != first) {
            Some(other) => Self::Conflicting(first.or(other).map(named).unwrap_or_default()),
            None => first.map_or(Self::Unnamed, |name| Self::Named(named(name))),
        }
    }
}

/// The formats differ in `critical.type` and in what `optional` may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Cosign,
    SimpleSigning,
}

impl Payload {
    /// Reads the payload of an OpenPGP signature (rules J-1 to J-7). Unless it has been verified, it is hearsay.
    pub(in crate::verify) fn parse_simple_signing(bytes: &[u8]) -> Result<Self, Rejection> {
        parse(bytes, Format::SimpleSigning).map_err(malformed)
    }

    /// Reads the payload of a cosign signature (rules C-11, C-12). Unless it has been verified, it is hearsay.
    pub(in crate::verify) fn parse_cosign(bytes: &[u8]) -> Result<Self, Rejection> {
        parse(bytes, Format::Cosign).map_err(malformed)
    }
}

fn malformed(detail: String) -> Rejection {
    Rejection::MalformedPayload { detail }
}

fn parse(bytes: &[u8], format: Format) -> Result<Payload, String> {
    let root = json::parse(bytes, PAYLOAD).map_err(|e| format!("it is not JSON: {e}"))?;
    let [critical, optional] = exact_members(&root, ["critical", "optional"], "the payload")?;
    check_optional(optional, format)?;
    let strings = optional.members().unwrap_or_default().iter();
    let annotations =
        strings.filter_map(|m| Some((m.key.clone().into_owned(), m.value.text()?.to_owned()))).collect();
    let [kind, image, identity] = exact_members(critical, ["type", "image", "identity"], "\"critical\"")?;
    let wanted = match format {
        Format::Cosign => "cosign container image signature",
        Format::SimpleSigning => "atomic container signature",
    };
    if string(kind, "critical.type")? != wanted {
        return Err(format!("\"critical.type\" is not \"{wanted}\""));
    }
    let [digest] = exact_members(image, ["docker-manifest-digest"], "\"critical.image\"")?;
    let manifest_digest = Digest::parse(string(digest, "docker-manifest-digest")?)
        .ok_or("\"docker-manifest-digest\" is not a digest")?;
    let [reference] = exact_members(identity, ["docker-reference"], "\"critical.identity\"")?;
    let docker_reference = string(reference, "docker-reference")?.to_owned();
    Ok(Payload { docker_reference, manifest_digest, annotations })
}

/// The members of those names: each once, and no others.
pub(in crate::verify) fn exact_members<'v, 'a, const N: usize>(
    value: &'v Value<'a>,
    names: [&str; N],
    what: &str,
) -> Result<[&'v Value<'a>; N], String> {
    let members = value.members().ok_or_else(|| format!("{what} is not an object"))?;
    let mut found = [None; N];
    for member in members {
        let slot = names.iter().zip(&mut found).find(|(name, _)| **name == member.key);
        match slot {
            Some((_, slot @ None)) => *slot = Some(&member.value),
            Some((name, Some(_))) => return Err(format!("{what} has \"{name}\" twice")),
            None => return Err(format!("{what} has the unknown member \"{}\"", member.key)),
        }
    }
    match names.iter().zip(&found).find(|(_, slot)| slot.is_none()) {
        Some((name, _)) => Err(format!("{what} has no \"{name}\"")),
        None => Ok(found.map(|slot| slot.unwrap_or(value))),
    }
}

fn string<'v>(value: &'v Value<'_>, what: &str) -> Result<&'v str, String> {
    value.text().ok_or_else(|| format!("\"{what}\" is not a string"))
}

/// Rules J-6 and C-12: any members, but `creator` and `timestamp` must have their types.
fn check_optional(optional: &Value<'_>, format: Format) -> Result<(), String> {
    if optional.is_null() && format == Format::Cosign {
        return Ok(());
    }
    let members = optional.members().ok_or("\"optional\" is not an object")?;
    let mut names: Vec<&str> = members.iter().map(|m| &*m.key).collect();
    names.sort_unstable();
    if let Some(name) = names.windows(2).find_map(|w| (w.first() == w.last()).then(|| w.first())).flatten() {
        return Err(format!("\"optional\" has \"{name}\" twice"));
    }
    members.iter().try_for_each(check_optional_member)
}

fn check_optional_member(member: &Member<'_>) -> Result<(), String> {
    let text_or_null = member.value.is_null() || member.value.text().is_some();
    match &*member.key {
        "creator" if !text_or_null => Err("\"optional.creator\" is not a string".to_owned()),
        "timestamp" => check_timestamp(&member.value),
        _ if member.value.has_finite_numbers() => Ok(()),
        _ => Err("\"optional\" has a number that is too large".to_owned()),
    }
}

/// A number that a 64-bit signed integer holds, after reading it as a double (rule J-6).
fn check_timestamp(value: &Value<'_>) -> Result<(), String> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let integral = |n: &str| n.parse::<f64>().is_ok_and(|v| (-LIMIT..LIMIT).contains(&v) && v.trunc() == v);
    match &value.data {
        Data::Null => Ok(()),
        Data::Number(n) if integral(n) => Ok(()),
        Data::Bool(_) | Data::Number(_) | Data::String(_) | Data::Array(_) | Data::Object(_) => {
            Err("\"optional.timestamp\" is not an integer".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn payload(kind: &str, optional: &str) -> String {
        format!(
            r#"{{"critical":{{"type":"{kind}","image":{{"docker-manifest-digest":"{DIGEST}"}},"identity":{{"docker-reference":"a/b:1"}}}},"optional":{optional}}}"#
        )
    }

    #[test]
    fn optional_follows_the_format() {
        for (optional, simple, cosign) in [
            ("{}", true, true),
            ("null", false, true),
            ("[]", false, false),
            (r#"{"creator":null,"timestamp":null,"x":{"a":1,"a":2}}"#, true, true),
            (r#"{"timestamp":1e3}"#, true, true),
            (r#"{"timestamp":1.5}"#, false, false),
            (r#"{"timestamp":9223372036854775808}"#, false, false),
            (r#"{"timestamp":"1"}"#, false, false),
            (r#"{"creator":1}"#, false, false),
            (r#"{"x":1e999}"#, false, false),
            (r#"{"x":[{"y":1e999}]}"#, false, false),
            (r#"{"x":1,"x":1}"#, false, false),
        ] {
            let text = payload("atomic container signature", optional);
            assert_eq!(Payload::parse_simple_signing(text.as_bytes()).is_ok(), simple, "{optional}");
            let text = payload("cosign container image signature", optional);
            assert_eq!(Payload::parse_cosign(text.as_bytes()).is_ok(), cosign, "{optional}");
        }
    }

    #[test]
    fn the_formats_are_not_exchangeable_and_members_are_exact() {
        let good = payload("atomic container signature", "{}");
        assert!(Payload::parse_cosign(good.as_bytes()).is_err());
        for (from, to) in [
            (r#""optional":{}"#, r#""optional":{},"x":1"#),
            (r#","optional":{}"#, ""),
            (r#""type""#, r#""Type""#),
            (r#""a/b:1""#, "1"),
            ("sha256:e3", "sha256:E3"),
            (r#"{"docker-reference":"a/b:1"}"#, r#"{"docker-reference":"a/b:1","docker-reference":"a/b:1"}"#),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(Payload::parse_simple_signing(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
