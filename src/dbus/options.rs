//! [`Options`]: the options of a verification.

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

/// Most descriptors of one message: 16, specs/dbus-systemd.md, "Limits".
const DESCRIPTORS: usize = 16;

/// What the options are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `VerifyImage` and `EvaluateImage`.
    Image,
    /// `VerifyImageDigest`.
    ImageDigest,
    /// `VerifyManifest`.
    Manifest,
}

impl Method {
    /// Whether an option means anything for it. Those that nobody knows do not.
    fn has(self, key: &str) -> bool {
        match key {
            "check-tag" => self == Self::ImageDigest,
            "expected-digest" | "platform" => self != Self::Manifest,
            "signatures" => self == Self::Manifest,
            _ => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Image => "VerifyImage",
            Self::ImageDigest => "VerifyImageDigest",
            Self::Manifest => "VerifyManifest",
        }
    }
}

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
    /// Whether no credentials are used; if `None`, those of this host are, by callers who may.
    pub anonymous: Option<bool>,
    /// Whether the name must lead to the digest at present.
    pub check_tag: bool,
    /// Whether nothing that was found or verified before counts.
    pub no_cache: bool,
    /// The only signatures that count, not read yet; if `None`, they are looked for.
    pub signatures: Option<Vec<Descriptor>>,
}

/// A descriptor that a caller handed over.
#[derive(Clone, Debug)]
pub struct Descriptor(Arc<OwnedFd>);

impl Descriptor {
    /// The same, to be kept.
    pub(super) fn of(descriptor: &impl AsFd) -> Result<Self, Error> {
        let owned = descriptor.as_fd().try_clone_to_owned();
        owned.map(Self::from).map_err(|_| Error::internal("there are no descriptors left"))
    }

    /// Another one for the same file.
    pub(super) fn duplicate(&self) -> Result<OwnedFd, Error> {
        self.0.try_clone().map_err(|_| Error::internal("there are no descriptors left"))
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
    pub fn parse(dictionary: &Dictionary, method: Method) -> Result<Self, Error> {
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
            anonymous: None,
            check_tag: false,
            no_cache: false,
            signatures: None,
        };
        for (place, (key, value)) in dictionary.iter().enumerate() {
            if dictionary.iter().take(place).any(|(earlier, _)| earlier == key) {
                return Err(Error::invalid_args(&format!("option {key:?} comes twice")));
            }
            if !method.has(key) {
                let name = method.name();
                return Err(Error::invalid_args(&format!("option {key:?} is not one of {name}")));
            }
            options.set(key, value)?;
        }
        if options.anonymous == Some(true) && options.auth_file.is_some() {
            return Err(Error::invalid_args("\"anonymous\" and \"auth-file\" contradict each other"));
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &Variant<'_>) -> Result<(), Error> {
        match key {
            "anonymous" => self.anonymous = Some(boolean(key, value)?),
            "auth-file" => self.auth_file = Some(descriptor(value).ok_or_else(|| wrong_type(key, "h"))??),
            "check-tag" => self.check_tag = boolean(key, value)?,
            "cookie" => self.cookie = Some(parse_cookie(string(key, value)?)?),
            "expected-digest" => self.expected_digest = Some(parse_digest(string(key, value)?)?),
            "no-cache" => self.no_cache = boolean(key, value)?,
            "initiator" => self.initiator = Some(parse_initiator(string(key, value)?)?),
            "platform" => self.question.platform = parse_platform(value)?,
            "require-signature" => self.question.require_signature = boolean(key, value)?,
            "signatures" => self.signatures = Some(parse_signatures(key, value)?),
            "subject" => self.question.subject = parse_subject(string(key, value)?)?,
            "timeout-usec" => {
                let Variant::U64(microseconds) = value else { return Err(wrong_type(key, "t")) };
                self.timeout = parse_timeout(*microseconds)?;
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
        if let Some(anonymous) = self.anonymous {
            dictionary = dictionary.with("anonymous", anonymous);
        }
        for (key, is_set) in [("check-tag", self.check_tag), ("no-cache", self.no_cache)] {
            dictionary = if is_set { dictionary.with(key, true) } else { dictionary };
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

fn boolean(key: &str, value: &Variant<'_>) -> Result<bool, Error> {
    let Variant::Bool(value) = value else { return Err(wrong_type(key, "b")) };
    Ok(*value)
}

/// Nothing if it is no descriptor.
fn descriptor(value: &Variant<'_>) -> Option<Result<Descriptor, Error>> {
    let Variant::Fd(descriptor) = value else { return None };
    Some(Descriptor::of(descriptor))
}

fn parse_signatures(key: &str, value: &Variant<'_>) -> Result<Vec<Descriptor>, Error> {
    let Variant::Array(elements) = value else { return Err(wrong_type(key, "ah")) };
    if elements.len() > DESCRIPTORS {
        return Err(Error::invalid_args("there are more than 16 \"signatures\""));
    }
    elements.iter().map(|element| descriptor(element).ok_or_else(|| wrong_type(key, "ah"))?).collect()
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
        let options = Options::parse(&Dictionary::new(), Method::Image).unwrap();
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
                    anonymous: Some(!require_signature),
                    check_tag: require_signature,
                    no_cache: require_signature,
                    signatures: None,
                };
                let parsed = Options::parse(&options.to_dictionary(), Method::ImageDigest);
                assert_eq!(parsed.unwrap(), options);
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
            with("anonymous", s("true").into()),
            with("check-tag", true.into()),
            with("signatures", s("x").into()),
            with("auth-file", s("/x").into()),
            with("no-cache", s("true").into()),
            with("initiator", s("a").into()).with("initiator", s("a")),
            with("require-signature", true.into()).with("require-signature", false),
        ] {
            let error = Options::parse(&wrong, Method::Image).unwrap_err();
            assert!(matches!(error, Error::InvalidArgs(_)), "{wrong:?}: {error}");
            assert_eq!(error.code(), Some("usage"), "{wrong:?}");
        }
    }

    #[test]
    fn every_method_has_options_of_its_own() {
        let digest = Digest::sha256(b"").to_string();
        let platform = || OwnedVariant::try_from(Variant::Structure(("linux", "amd64", "").into())).unwrap();
        let signatures = || {
            let none = zbus::wire::Array::new(<zbus::wire::Fd<'_> as zbus::Type>::SIGNATURE);
            OwnedVariant::try_from(Variant::Array(none)).unwrap()
        };
        for (key, value, wanted) in [
            ("check-tag", true.into(), [false, true, false]),
            ("expected-digest", s(&digest).into(), [true, true, false]),
            ("platform", platform(), [true, true, false]),
            ("signatures", signatures(), [false, false, true]),
            ("anonymous", true.into(), [true, true, true]),
            ("cookie", s("c").into(), [true, true, true]),
            ("no-cache", true.into(), [true, true, true]),
        ] {
            let options = Dictionary::new().with(key, value);
            let allowed = [Method::Image, Method::ImageDigest, Method::Manifest]
                .map(|method| Options::parse(&options, method).is_ok());
            assert_eq!(allowed, wanted, "{key}");
        }
    }

    #[test]
    fn timeouts_up_to_ten_minutes() {
        for (microseconds, wanted) in
            [(0_u64, DEFAULT_TIMEOUT), (1, Duration::from_micros(1)), (600_000_000, LONGEST_TIMEOUT)]
        {
            let options =
                Options::parse(&Dictionary::new().with("timeout-usec", microseconds), Method::Image).unwrap();
            assert_eq!(options.timeout, wanted);
        }
    }
}
