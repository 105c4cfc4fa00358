//! [`Dictionary`]: `a{sv}`, as options and as a [`Report`].

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use zbus::wire::{Array, Dict, Str};
use zbus::{OwnedVariant, Type, Variant};

use crate::report::Report;

use super::Error;

/// An `a{sv}` with its entries in order; a key that comes twice stays visible.
#[derive(Debug, Default, PartialEq, Type)]
#[zbus(signature = "a{sv}")]
pub struct Dictionary(Vec<(String, OwnedVariant)>);

impl Dictionary {
    /// Without entries.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an entry.
    pub fn with(mut self, key: &str, value: impl Into<OwnedVariant>) -> Self {
        self.0.push((key.to_owned(), value.into()));
        self
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Variant<'static>)> {
        self.0.iter().map(|(key, value)| (key.as_str(), &**value))
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&Variant<'static>> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A report under the keys of its JSON.
    pub(super) fn of(report: &impl Serialize) -> Result<Self, Error> {
        let broken = |_| Error::internal("the report cannot be sent");
        let Ok(Value::Object(members)) = serde_json::to_value(report) else {
            return Err(Error::internal("the report is no object"));
        };
        let mut entries = Vec::new();
        for (key, value) in &members {
            if let Some(variant) = variant(key, value).map_err(broken)? {
                entries.push((key.clone(), OwnedVariant::try_from(variant).map_err(broken)?));
            }
        }
        Ok(Self(entries))
    }

    /// The report again. Keys that are not known are left out.
    pub(super) fn to_report(&self) -> Result<Report, String> {
        self.read()
    }

    /// What was sent under the keys of its JSON.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let mut members = serde_json::Map::new();
        for (key, value) in self.iter() {
            if members.insert(key.to_owned(), json(value)?).is_some() {
                return Err(format!("the key {key:?} comes twice"));
            }
        }
        serde_json::from_value(Value::Object(members)).map_err(|error| error.to_string())
    }
}

impl Serialize for Dictionary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for Dictionary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Dictionary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a dictionary of variants")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dictionary, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Dictionary(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// The variant for a JSON value; `null` has none.
fn variant(key: &str, value: &Value) -> Result<Option<Variant<'static>>, zbus::Error> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => Variant::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Variant::U64(number),
            (None, Some(number)) => Variant::I64(number),
            (None, None) => return Err(zbus::Error::IncorrectType),
        },
        Value::String(text) => Variant::Str(string(text)),
        Value::Array(elements) => Variant::Array(array(key, elements)?),
        Value::Object(members) => Variant::Dict(dict(members)?),
    }))
}

/// An `as` or `aa{sv}`; the others are lists of objects.
fn array(key: &str, elements: &[Value]) -> Result<Array<'static>, zbus::Error> {
    let element = if STRINGS.contains(&key) { <&str>::SIGNATURE } else { Dictionary::SIGNATURE };
    let mut array = Array::new(element);
    for value in elements {
        array.append(variant(key, value)?.ok_or(zbus::Error::IncorrectType)?)?;
    }
    Ok(array)
}

/// The lists of strings that reports have.
const STRINGS: [&str; 2] = ["scope-chain", "warnings"];

fn dict(members: &serde_json::Map<String, Value>) -> Result<Dict<'static, 'static>, zbus::Error> {
    let mut dict = Dict::new(<&str>::SIGNATURE, Variant::SIGNATURE);
    for (key, value) in members {
        if let Some(value) = variant(key, value)? {
            dict.append(Variant::Str(string(key)), Variant::Variant(Box::new(value)))?;
        }
    }
    Ok(dict)
}

/// A string of a message holds no NUL: the bus ends the connection of who sends one.
///
/// D-Bus Specification, "Summary of types", STRING.
fn string(text: &str) -> Str<'static> {
    Str::from(text.replace('\0', "\u{fffd}"))
}

/// The JSON of a variant that a report may hold.
fn json(value: &Variant<'_>) -> Result<Value, String> {
    Ok(match value {
        Variant::Bool(value) => Value::from(*value),
        Variant::U8(value) => Value::from(*value),
        Variant::U16(value) => Value::from(*value),
        Variant::U32(value) => Value::from(*value),
        Variant::U64(value) => Value::from(*value),
        Variant::I16(value) => Value::from(*value),
        Variant::I32(value) => Value::from(*value),
        Variant::I64(value) => Value::from(*value),
        Variant::F64(value) => Value::from(*value),
        Variant::Str(text) => Value::from(text.as_str()),
        Variant::Variant(value) => json(value)?,
        Variant::Array(elements) => {
            Value::Array(elements.inner().iter().map(json).collect::<Result<_, _>>()?)
        }
        Variant::Dict(entries) => {
            let mut members = serde_json::Map::new();
            for (key, value) in entries.iter() {
                let Variant::Str(key) = key else { return Err("a key is no string".to_owned()) };
                members.insert(key.as_str().to_owned(), json(value)?);
            }
            Value::Object(members)
        }
        Variant::Signature(_) | Variant::ObjectPath(_) | Variant::Structure(_) | Variant::Fd(_) => {
            // A newer service may send what this version does not know; it has no key for it.
            Value::Null
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::report::{PolicyReport, RequirementReport, Route, ScopeReport, SignatureReport, SignerReport};

    fn report() -> Report {
        let mut report =
            Report::undecided("docker://h/a:1", Route::Bus, "unsigned", "no \u{1f980}".into(), "sign it");
        report.decided = true;
        report.requests = 7;
        report.warnings = vec!["one".into(), "two".into()];
        report.policy = Some(PolicyReport { path: "/p".into(), digest: "sha256:00".into() });
        report.scope = Some(ScopeReport {
            transport: None,
            name: "default".into(),
            file: "/p".into(),
            line: 1,
            column: u64::MAX,
        });
        let signature = SignatureReport {
            kind: "sigstore".into(),
            location: "https://h".into(),
            accepted: true,
            code: None,
            message: None,
            signer: Some(SignerReport {
                kind: "certificate".into(),
                id: "AB".into(),
                issuer: Some("https://issuer.example".into()),
                subject: Some("a@b.example".into()),
            }),
            time: None,
            reference_bound: None,
        };
        report.requirements = vec![RequirementReport {
            subject: "instance".into(),
            digest: Some("sha256:11".into()),
            kind: "signedBy".into(),
            satisfied: false,
            code: Some("unsigned".into()),
            message: None,
            signatures: vec![signature],
        }];
        report
    }

    #[test]
    fn reports_survive_the_bus() {
        let mut empty = report();
        empty.warnings.clear();
        empty.requirements.clear();
        for report in [report(), empty] {
            let dictionary = Dictionary::of(&report).unwrap();
            assert_eq!(dictionary.to_report().unwrap(), report);
            let context = zbus::wire::serialized::Context::new(zbus::wire::LE, 0);
            let bytes = zbus::wire::to_bytes(context, &dictionary).unwrap();
            let (again, _): (Dictionary, _) = bytes.deserialize().unwrap();
            assert_eq!(again, dictionary);
            for (key, signature) in
                [("warnings", "as"), ("requirements", "aa{sv}"), ("policy", "a{sv}"), ("requests", "t")]
            {
                assert_eq!(dictionary.value(key).unwrap().value_signature(), signature, "{key}");
            }
            assert!(dictionary.value("manifest-digest").is_none());
        }
    }

    #[test]
    fn strings_never_hold_nul() {
        let mut report = report();
        report.requirements[0].signatures[0].location = "a\0b".into();
        let again = Dictionary::of(&report).unwrap().to_report().unwrap();
        assert_eq!(again.requirements[0].signatures[0].location, "a\u{fffd}b");
    }

    #[test]
    fn reports_that_are_no_reports_are_refused() {
        assert!(Dictionary::new().to_report().is_err());
        let dictionary = Dictionary::of(&report()).unwrap();
        let mut twice = Dictionary::of(&report()).unwrap();
        twice.0.extend(dictionary.0.iter().filter(|(key, _)| key == "allowed").cloned());
        assert!(twice.to_report().is_err());
        let mut other =
            Dictionary(dictionary.0.iter().filter(|(key, _)| key != "allowed").cloned().collect());
        assert!(other.to_report().is_err());
        other = other.with("allowed", Str::from("true"));
        assert!(other.to_report().is_err());
        let newer = dictionary.with("new-key", Str::from("value"));
        assert_eq!(newer.to_report().unwrap(), report());
    }
}
