//! [`Options`]: the options of a verification.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use zbus::wire::{Str, Structure};
use zbus::{OwnedVariant, Variant};

use crate::digest::Digest;
use crate::engine::{DEFAULT_TIMEOUT, LONGEST_TIMEOUT};
use crate::evaluate::evidence::{Question, Subject};
use crate::manifest::Platform;

use super::{Dictionary, Error};

/// Most options of one call: 32, specs/dbus-systemd.md, "Limits".
const OPTIONS: usize = 32;

/// Longest `initiator`: 256 bytes, org.vouchd.Verifier1.
const INITIATOR_BYTES: usize = 256;

/// Longest `cookie`: 64 bytes.
const COOKIE_BYTES: usize = 64;

/// Longest part of a platform; the longest in use have eight.
const PLATFORM_BYTES: usize = 32;

/// Options of the interface that this version does not have.
const LATER: [&str; 2] = ["anonymous", "no-cache"];

/// How a caller wants its verification done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the question is meant.
    pub question: Question,
    /// What the image must be, if it is allowed.
    pub expected_digest: Option<Digest>,
    /// The deadline of the whole.
    pub timeout: Duration,
    /// Who asks. Untrusted: escape before printing.
    pub initiator: Option<String>,
    /// The caller's own authentication file, not read yet.
    pub auth_file: Option<Descriptor>,
    /// The caller's name for this verification. Untrusted: escape before printing.
    pub cookie: Option<String>,
}

/// A descriptor that a caller handed over.
#[derive(Clone, Debug)]
pub struct Descriptor(Arc<OwnedFd>);

impl Descriptor {
    /// Another one for the same file.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Arc::new(descriptor))
    }
}

impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Descriptor {}

impl Options {
    /// Reads the options of a call. What is not understood is an error: ignoring it could fail open.
    pub fn parse(dictionary: &Dictionary) -> Result<Self, Error> {
        if dictionary.len() > OPTIONS {
            return Err(Error::invalid_args("there are more than 32 options"));
        }
        let mut options = Self {
            question: Question {
                require_signature: true,
                subject: Subject::Either,
                platform: Platform::host(),
            },
            expected_digest: None,
            timeout: DEFAULT_TIMEOUT,
            initiator: None,
            auth_file: None,
            cookie: None,
        };
        for (place, (key, value)) in dictionary.iter().enumerate() {
            if dictionary.iter().take(place).any(|(earlier, _)| earlier == key) {
                return Err(Error::invalid_args(&format!("option {key:?} comes twice")));
            }
            options.set(key, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &Variant<'_>) -> Result<(), Error> {
        match key {
            "auth-file" => {
                let Variant::Fd(descriptor) = value else { return Err(wrong_type(key, "h")) };
                let owned = descriptor.as_fd().try_clone_to_owned();
                let owned = owned.map_err(|_| Error::internal("there are no descriptors left"))?;
                self.auth_file = Some(owned.into());
            }
            "cookie" => self.cookie = Some(parse_cookie(string(key, value)?)?),
            "expected-digest" => self.expected_digest = Some(parse_digest(string(key, value)?)?),
            "initiator" => self.initiator = Some(parse_initiator(string(key, value)?)?),
            "platform" => self.question.platform = parse_platform(value)?,
            "require-signature" => {
                let Variant::Bool(required) = value else { return Err(wrong_type(key, "b")) };
                self.question.require_signature = *required;
            }
            "subject" => self.question.subject = parse_subject(string(key, value)?)?,
            "timeout-usec" => {
                let Variant::U64(microseconds) = value else { return Err(wrong_type(key, "t")) };
                self.timeout = parse_timeout(*microseconds)?;
            }
            later if LATER.contains(&later) => {
                return Err(Error::invalid_args(&format!("this version does not support option {key:?}")));
            }
            _ => return Err(Error::invalid_args(&format!("option {key:?} is not known"))),
        }
        Ok(())
    }

    /// The same as the options of a call, but for a descriptor; none is left to its default.
    pub fn to_dictionary(&self) -> Dictionary {
        let platform = &self.question.platform;
        let parts = (platform.os.clone(), platform.architecture.clone(), platform.variant.clone());
        // 0 means the default, so the shortest is 1.
        let microseconds = u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut dictionary = Dictionary::new()
            .with("require-signature", self.question.require_signature)
            .with("subject", Str::from(subject_name(self.question.subject)))
            .with("timeout-usec", microseconds);
        // A structure of strings holds no descriptor, which is all that could fail.
        if let Ok(platform) = OwnedVariant::try_from(Variant::Structure(Structure::from(parts))) {
            dictionary = dictionary.with("platform", platform);
        }
        if let Some(digest) = &self.expected_digest {
            dictionary = dictionary.with("expected-digest", Str::from(digest.to_string()));
        }
        if let Some(initiator) = &self.initiator {
            dictionary = dictionary.with("initiator", Str::from(initiator.clone()));
        }
        if let Some(cookie) = &self.cookie {
            dictionary = dictionary.with("cookie", Str::from(cookie.clone()));
        }
        dictionary
    }
}

fn wrong_type(key: &str, wanted: &str) -> Error {
    Error::invalid_args(&format!("option {key:?} must be of type {wanted}"))
}

fn string<'v>(key: &str, value: &'v Variant<'_>) -> Result<&'v str, Error> {
    let Variant::Str(text) = value else { return Err(wrong_type(key, "s")) };
    Ok(text.as_str())
}

fn parse_digest(text: &str) -> Result<Digest, Error> {
    Digest::parse(text).ok_or_else(|| Error::invalid_args("\"expected-digest\" is no digest"))
}

fn parse_cookie(text: &str) -> Result<String, Error> {
    if text.is_empty() || text.len() > COOKIE_BYTES {
        return Err(Error::invalid_args("\"cookie\" must have 1 to 64 bytes"));
    }
    Ok(text.to_owned())
}

fn parse_initiator(text: &str) -> Result<String, Error> {
    if text.len() > INITIATOR_BYTES {
        return Err(Error::invalid_args("\"initiator\" is longer than 256 bytes"));
    }
    Ok(text.to_owned())
}

fn parse_platform(value: &Variant<'_>) -> Result<Platform, Error> {
    let Variant::Structure(parts) = value else { return Err(wrong_type("platform", "(sss)")) };
    let [Variant::Str(os), Variant::Str(architecture), Variant::Str(variant)] = parts.fields() else {
        return Err(wrong_type("platform", "(sss)"));
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fits = |part: &str| part.len() <= PLATFORM_BYTES && part.bytes().all(allowed);
    if os.is_empty() || architecture.is_empty() || ![os, architecture, variant].iter().all(|p| fits(p)) {
        return Err(Error::invalid_args("\"platform\" must be like (\"linux\", \"arm64\", \"v8\")"));
    }
    let owned = |part: &Str<'_>| part.as_str().to_owned();
    Ok(Platform { os: owned(os), architecture: owned(architecture), variant: owned(variant) })
}

fn parse_subject(text: &str) -> Result<Subject, Error> {
    [Subject::Both, Subject::Either, Subject::Instance, Subject::TopLevel]
        .into_iter()
        .find(|subject| subject_name(*subject) == text)
        .ok_or_else(|| {
            Error::invalid_args("\"subject\" must be \"either\", \"instance\", \"top-level\" or \"both\"")
        })
}

fn subject_name(subject: Subject) -> &'static str {
    match subject {
        Subject::Both => "both",
        Subject::Either => "either",
        Subject::Instance => "instance",
        Subject::TopLevel => "top-level",
    }
}

fn parse_timeout(microseconds: u64) -> Result<Duration, Error> {
    let timeout = Duration::from_micros(microseconds);
    if timeout > LONGEST_TIMEOUT {
        return Err(Error::invalid_args("\"timeout-usec\" is more than 10 minutes"));
    }
    Ok(if timeout.is_zero() { DEFAULT_TIMEOUT } else { timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(text: &str) -> Str<'static> {
        Str::from(text.to_owned())
    }

    #[test]
    fn no_options_mean_the_defaults() {
        let options = Options::parse(&Dictionary::new()).unwrap();
        assert!(options.question.require_signature);
        assert_eq!(options.question.subject, Subject::Either);
        assert_eq!(options.question.platform, Platform::host());
        assert_eq!((options.expected_digest, options.initiator), (None, None));
        assert_eq!(options.timeout, DEFAULT_TIMEOUT);
    }

    #[test]
    fn options_survive_the_bus() {
        let digest = Digest::sha256(b"");
        for subject in [Subject::Both, Subject::Either, Subject::Instance, Subject::TopLevel] {
            for require_signature in [true, false] {
                let options = Options {
                    question: Question {
                        require_signature,
                        subject,
                        platform: Platform::parse("linux/arm/v7").unwrap(),
                    },
                    expected_digest: Some(digest.clone()),
                    timeout: Duration::from_millis(1500),
                    initiator: Some("test".into()),
                    auth_file: None,
                    cookie: Some("c".into()),
                };
                assert_eq!(Options::parse(&options.to_dictionary()).unwrap(), options);
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let with = |key: &str, value: OwnedVariant| Dictionary::new().with(key, value);
        let structure = |parts: &[&str]| {
            let mut built = zbus::wire::StructureBuilder::new();
            for part in parts {
                built = built.append_field(Variant::Str(s(part)));
            }
            OwnedVariant::try_from(Variant::Structure(built.build().unwrap())).unwrap()
        };
        let many = (0..33).fold(Dictionary::new(), |d, _| d.with("initiator", s("x")));
        for wrong in [
            many,
            with("require-signature", s("false").into()),
            with("require-signature", 0u32.into()),
            with("Require-Signature", false.into()),
            with("require_signature", false.into()),
            with("", false.into()),
            with("subject", s("any").into()),
            with("subject", s("").into()),
            with("subject", false.into()),
            with("platform", s("linux/amd64").into()),
            with("platform", structure(&["linux", "amd64"])),
            with("platform", structure(&["linux", "amd64", "", ""])),
            with("platform", structure(&["", "amd64", ""])),
            with("platform", structure(&["linux", "", ""])),
            with("platform", structure(&["linux", "amd64", "a/b"])),
            with("platform", structure(&["linux", &"a".repeat(33), ""])),
            with("expected-digest", s("").into()),
            with("expected-digest", s("sha256:00").into()),
            with("timeout-usec", 600_000_001_u64.into()),
            with("timeout-usec", u64::MAX.into()),
            with("timeout-usec", 1u32.into()),
            with("initiator", s(&"x".repeat(257)).into()),
            with("cookie", s("").into()),
            with("cookie", s(&"x".repeat(65)).into()),
            with("cookie", 1u32.into()),
            with("anonymous", true.into()),
            with("auth-file", s("/x").into()),
            with("no-cache", true.into()),
            with("initiator", s("a").into()).with("initiator", s("a")),
            with("require-signature", true.into()).with("require-signature", false),
        ] {
            let error = Options::parse(&wrong).unwrap_err();
            assert!(matches!(error, Error::InvalidArgs(_)), "{wrong:?}: {error}");
            assert_eq!(error.code(), Some("usage"), "{wrong:?}");
        }
    }

    #[test]
    fn timeouts_up_to_ten_minutes() {
        for (microseconds, wanted) in
            [(0_u64, DEFAULT_TIMEOUT), (1, Duration::from_micros(1)), (600_000_000, LONGEST_TIMEOUT)]
        {
            let options = Options::parse(&Dictionary::new().with("timeout-usec", microseconds)).unwrap();
            assert_eq!(options.timeout, wanted);
        }
    }
}
