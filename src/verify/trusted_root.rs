//! [`TrustedRoot`]: the keys and certificates of a Sigstore instance, and when each was in use.

use std::fmt;

use sigstore_verify::Verifier;
use sigstore_verify::trust_root::{self, SIGSTORE_PRODUCTION_TRUSTED_ROOT};
use sigstore_verify::types::{TimeRange, TsaAuthority};
use x509_cert::der::Decode;

use crate::diagnostic::{Code, escape};
use crate::json::{self, Limits, Value};

use super::Timestamp;
use super::bundle::key::Key;
use super::protojson::{Message, check_unique};
use super::tuf::{self, Proven, Versions};

/// Largest trusted root: 4 MiB (design, limits). Sigstore's own takes 7 KiB.
pub const TRUSTED_ROOT_BYTES: usize = 4 << 20;

/// How much a trusted root may say. Sigstore's own nests five levels and has 120 values.
const LIMITS: Limits = Limits { depth: 64, values: 100_000 };

/// Most logs or authorities of one kind.
const INSTANCES: usize = 256;

/// Most certificates of one authority.
const CHAIN: usize = 8;

/// A `trusted_root.json`; protobuf-specs `sigstore_trustroot.proto`.
pub struct TrustedRoot {
    pub(in crate::verify) logs: Vec<Log>,
    pub(in crate::verify) authorities: Vec<Authority>,
    pub(in crate::verify) timestamp_authorities: Vec<TsaAuthority>,
    has_ct_logs: bool,
    instances: Vec<Instance>,
}

/// The trusted root of this host, for requirements that name none.
#[derive(Debug)]
pub struct HostRoot {
    /// The file, or what else it is, for messages.
    pub source: String,
    /// The root.
    pub root: TrustedRoot,
    /// Until when it was known to be current, if that is known.
    pub current_until: Option<Timestamp>,
    /// The TUF metadata that proves it; none for one that somebody put there.
    pub versions: Option<Versions>,
}

impl HostRoot {
    /// That of Sigstore's public instance as it was when this was built: the floor, below which no update leads (T-31).
    pub fn built_in() -> Result<Self, TrustedRootError> {
        let (targets, current_until) = tuf::BUILT_IN;
        Ok(Self {
            source: "this program".to_owned(),
            root: TrustedRoot::parse(SIGSTORE_PRODUCTION_TRUSTED_ROOT.as_bytes())?,
            current_until: Some(current_until),
            versions: Some(Versions { targets, timestamp: 0, root: 0 }),
        })
    }

    /// The one that a TUF state proves.
    pub fn of_tuf(source: String, proven: Proven) -> Self {
        let Proven { root, versions, current_until } = proven;
        Self { source, root, current_until: Some(current_until), versions: Some(versions) }
    }

    /// Whether it was last known to be current so long ago that it may lack what signers use now.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        is_stale(self.current_until, now)
    }

    /// The one in a file that somebody put there.
    pub fn of_file(
        source: String,
        bytes: &[u8],
        written: Option<Timestamp>,
    ) -> Result<Self, TrustedRootError> {
        Ok(Self { source, root: TrustedRoot::parse(bytes)?, current_until: written, versions: None })
    }
}

/// A log or authority, as a trusted root lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What it is.
    pub kind: InstanceKind,
    /// Its URL. Untrusted: escape before printing.
    pub url: String,
    /// Since when it is in use.
    pub since: Timestamp,
    /// Until when, if it is out of use.
    pub until: Option<Timestamp>,
}

/// What trusted roots list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceKind {
    /// A log of signatures: Rekor.
    Log,
    /// A log of certificates.
    CertificateLog,
    /// An authority for certificates: Fulcio.
    CertificateAuthority,
    /// An authority for timestamps.
    TimestampAuthority,
}

impl InstanceKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::CertificateLog => "certificate-log",
            Self::CertificateAuthority => "certificate-authority",
            Self::TimestampAuthority => "timestamp-authority",
        }
    }
}

fn instances(root: &trust_root::TrustedRoot) -> Vec<Instance> {
    let instance = |kind, url: &str, window: Option<TimeRange>| {
        let window = window?;
        Some(Instance {
            kind,
            url: url.to_owned(),
            since: Timestamp(window.start.as_second()),
            until: window.end.map(|end| Timestamp(end.as_second())),
        })
    };
    let logs = root.tlogs.iter().map(|l| (InstanceKind::Log, &l.base_url, l.public_key.valid_for));
    let ct = root.ctlogs.iter().map(|l| (InstanceKind::CertificateLog, &l.base_url, l.public_key.valid_for));
    let authorities = root.certificate_authorities.iter();
    let authorities = authorities.map(|a| (InstanceKind::CertificateAuthority, &a.uri, a.valid_for));
    let stamps = root.timestamp_authorities.iter();
    let stamps =
        stamps.filter_map(|a| Some((InstanceKind::TimestampAuthority, a.uri.as_ref()?, a.valid_for)));
    let all = logs.chain(ct).chain(authorities).chain(stamps);
    all.filter_map(|(kind, url, window)| instance(kind, url, window)).collect()
}

/// What to know of a trusted root that is stale; nothing of one that is not. Untrusted: escape before printing.
pub fn stale_warning(source: &str, current_until: Option<Timestamp>, now: Timestamp) -> Option<String> {
    current_until.filter(|_| is_stale(current_until, now)).map(|time| warning(source, time))
}

/// The same of one that is known to be stale.
pub fn warning(source: &str, current_until: Timestamp) -> String {
    format!(
        "the trusted root in \"{source}\" was last known to be current at {current_until}, and may lack what signers use today; {ADVICE}"
    )
}

/// How a trusted root becomes newer.
pub const ADVICE: &str = "\"vouchd trust update\" fetches a newer one for this host, and a file that somebody put there has to be replaced";

/// How long after it was last known to be current a trusted root is called stale: 180 days. It still counts, unless the
/// policy says otherwise; Sigstore's instances replace logs once or twice a year.
pub const STALE_AFTER: i64 = 180 * 86_400;

/// Whether what was last known to be current at that time is stale. Of what has no age that is not known.
pub fn is_stale(current_until: Option<Timestamp>, now: Timestamp) -> bool {
    current_until.is_some_and(|time| now.0.saturating_sub(time.0) > STALE_AFTER)
}

/// A transparency log.
#[derive(Debug)]
pub(in crate::verify) struct Log {
    /// The log ID: in Rekor v1 the SHA-256 of the key; its first four bytes are the key ID of checkpoints.
    pub(in crate::verify) id: Vec<u8>,
    /// The name in checkpoints: the URL without scheme.
    pub(in crate::verify) origin: String,
    pub(in crate::verify) key: Key,
    pub(in crate::verify) window: Window,
}

/// A certificate authority.
pub(in crate::verify) struct Authority {
    /// When it may be used.
    pub(in crate::verify) window: Window,
    /// What stands between a leaf and the anchor.
    pub(in crate::verify) intermediates: Vec<Vec<u8>>,
    /// Trusts this anchor and no other.
    pub(in crate::verify) verifier: Verifier,
}

/// A closed interval of time.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Window(TimeRange);

impl Window {
    /// Whether it holds the second.
    pub(in crate::verify) fn holds(self, second: i64) -> bool {
        const NANOSECONDS: i128 = 1_000_000_000;
        let time = i128::from(second).saturating_mul(NANOSECONDS);
        self.0.start.as_nanosecond() <= time && self.0.end.is_none_or(|end| time <= end.as_nanosecond())
    }

    /// Whether it has no end.
    pub(in crate::verify) fn is_open_ended(self) -> bool {
        self.0.end.is_none()
    }
}

/// Why a document is no trusted root that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trusted root cannot be used: {}", escape(.detail))]
pub struct TrustedRootError {
    /// What is wrong.
    pub detail: String,
}

impl TrustedRootError {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        Code::TrustedRootInvalid
    }

    /// What the administrator can do about it.
    pub fn help(&self) -> &'static str {
        "replace it with the trusted_root.json of the Sigstore instance; \"cosign trusted-root create\" writes one"
    }

    pub(in crate::verify) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

impl TrustedRoot {
    /// Reads a trusted root; one bad part makes all of it unusable.
    ///
    /// Every window must have a beginning: a missing one would mean forever.
    pub fn parse(document: &[u8]) -> Result<Self, TrustedRootError> {
        let root = read(document)?;
        let count = [
            root.tlogs.len(),
            root.ctlogs.len(),
            root.certificate_authorities.len(),
            root.timestamp_authorities.len(),
        ];
        if count.iter().any(|count| *count > INSTANCES) {
            return Err(TrustedRootError::new("it lists too many instances"));
        }
        // The library looks at every key and certificate, that none is passed over later.
        Verifier::new(&root).map_err(|e| TrustedRootError::new(e.to_string()))?;
        if root.ctlogs.iter().any(|log| log.public_key.valid_for.is_none()) {
            return Err(TrustedRootError::new("a log has no \"validFor\""));
        }
        Ok(Self {
            logs: root.tlogs.iter().map(log).collect::<Result<_, _>>()?,
            authorities: root
                .certificate_authorities
                .iter()
                .map(|authority| authority_alone(&root, authority))
                .collect::<Result<_, _>>()?,
            timestamp_authorities: root
                .timestamp_authorities
                .iter()
                .map(timestamp_authority)
                .collect::<Result<_, _>>()?,
            has_ct_logs: !root.ctlogs.is_empty(),
            instances: instances(&root),
        })
    }

    /// All that it lists.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Whether it lists transparency logs.
    pub fn has_logs(&self) -> bool {
        !self.logs.is_empty()
    }

    /// Whether it lists logs of certificates.
    pub fn has_ct_logs(&self) -> bool {
        self.has_ct_logs
    }

    /// Whether it lists certificate authorities.
    pub fn has_authorities(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// Whether it lists timestamp authorities.
    pub fn has_timestamp_authorities(&self) -> bool {
        !self.timestamp_authorities.is_empty()
    }

    /// The log of that ID.
    pub(in crate::verify) fn log(&self, id: &[u8]) -> Option<&Log> {
        self.logs.iter().find(|log| log.id == id)
    }
}

impl fmt::Debug for TrustedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedRoot").field("logs", &self.logs).finish_non_exhaustive()
    }
}

fn read(document: &[u8]) -> Result<trust_root::TrustedRoot, TrustedRootError> {
    if document.len() > TRUSTED_ROOT_BYTES {
        return Err(TrustedRootError::new("it is larger than 4 MiB"));
    }
    let value = json::parse(document, LIMITS).map_err(|e| TrustedRootError::new(e.reason))?;
    check_unique(&value).map_err(TrustedRootError::new)?;
    check_spelling(&value).map_err(TrustedRootError::new)?;
    let text = std::str::from_utf8(document).map_err(|_| TrustedRootError::new("it is not UTF-8"))?;
    let root = trust_root::TrustedRoot::from_json(text).map_err(|e| TrustedRootError::new(e.to_string()))?;
    match &*root.media_type {
        "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
        | "application/vnd.dev.sigstore.trustedroot.v0.1+json"
        | "application/vnd.dev.sigstore.trustedroot+json;version=0.2"
        | "application/vnd.dev.sigstore.trustedroot.v0.2+json" => Ok(root),
        other => Err(TrustedRootError::new(format!("its media type is \"{other}\""))),
    }
}

/// The library takes what is misspelled for absent, and an absent end for none.
fn check_spelling(value: &Value<'_>) -> Result<(), String> {
    const KNOWN: [&str; 17] = [
        "mediaType",
        "tlogs",
        "certificateAuthorities",
        "ctlogs",
        "timestampAuthorities",
        "baseUrl",
        "hashAlgorithm",
        "publicKey",
        "rawBytes",
        "keyDetails",
        "validFor",
        "start",
        "end",
        "logId",
        "keyId",
        "certChain",
        "certificates",
    ];
    if let Some(elements) = value.elements() {
        return elements.iter().try_for_each(check_spelling);
    }
    let Some(members) = value.members() else { return Ok(()) };
    Message::open("it", value, &KNOWN)?;
    members.iter().try_for_each(|member| check_spelling(&member.value))
}

fn log(log: &trust_root::TransparencyLog) -> Result<Log, TrustedRootError> {
    let origin = log.base_url.split_once("://").map_or("", |(_, rest)| rest.trim_end_matches('/'));
    if origin.is_empty() {
        return Err(TrustedRootError::new("a log has no URL"));
    }
    let window =
        log.public_key.valid_for.ok_or_else(|| TrustedRootError::new("a log has no \"validFor\""))?;
    let key = Key::from_spki(log.public_key.raw_bytes.as_bytes())
        .ok_or_else(|| TrustedRootError::new("a log has a key that cannot be used"))?;
    Ok(Log {
        id: log.log_id.key_id.as_bytes().to_vec(),
        origin: origin.to_owned(),
        key,
        window: Window(window),
    })
}

/// When an authority may be used: in its window, and while its anchor is valid, whose dates the library does not look at.
fn usable(window: TimeRange, anchor: &[u8]) -> Option<TimeRange> {
    let validity = x509_cert::Certificate::from_der(anchor).ok()?.tbs_certificate.validity;
    let first = validity.not_before.to_system_time().try_into().ok()?;
    // The last day of the year 9999 stands for no end, and is beyond what the library can say.
    let last = validity.not_after.to_system_time().try_into().ok();
    let end = window.end.into_iter().chain(last).min();
    Some(TimeRange { start: window.start.max(first), end })
}

/// One authority, with the last certificate of its chain as the only anchor: the library would take every certificate
/// of every chain for one.
fn authority_alone(
    root: &trust_root::TrustedRoot,
    authority: &trust_root::CertificateAuthority,
) -> Result<Authority, TrustedRootError> {
    let bad = |detail: &str| TrustedRootError::new(format!("a certificate authority {detail}"));
    let window = authority.valid_for.ok_or_else(|| bad("has no \"validFor\""))?;
    let mut intermediates = authority.cert_chain.certificates.clone();
    if intermediates.len() > CHAIN {
        return Err(bad("has too many certificates"));
    }
    let anchor = intermediates.pop().ok_or_else(|| bad("has no certificate"))?;
    let window =
        usable(window, anchor.raw_bytes.as_bytes()).ok_or_else(|| bad("has a malformed certificate"))?;
    let mut alone = authority.clone();
    alone.cert_chain.certificates = vec![anchor];
    let mut narrowed = root.clone();
    narrowed.certificate_authorities = vec![alone];
    Ok(Authority {
        window: Window(window),
        intermediates: intermediates.iter().map(|entry| entry.raw_bytes.as_bytes().to_vec()).collect(),
        verifier: Verifier::new(&narrowed).map_err(|e| TrustedRootError::new(e.to_string()))?,
    })
}

/// An authority with its leaf first and its anchor last; whether it has begun is not asked, as its window tells.
fn timestamp_authority(authority: &trust_root::TimestampAuthority) -> Result<TsaAuthority, TrustedRootError> {
    let bad = |detail: &str| TrustedRootError::new(format!("a timestamp authority {detail}"));
    let window = authority.valid_for.ok_or_else(|| bad("has no \"validFor\""))?;
    let certificates: Vec<_> =
        authority.cert_chain.certificates.iter().map(|entry| entry.raw_bytes.clone()).collect();
    let anchor = certificates.last().ok_or_else(|| bad("has no certificate"))?;
    let window = usable(window, anchor.as_bytes()).ok_or_else(|| bad("has a malformed certificate"))?;
    match certificates.as_slice() {
        [only] => Ok(TsaAuthority::new(only.clone(), Vec::new(), only.clone(), Some(window))),
        [leaf, between @ .., anchor] if between.len() < CHAIN => {
            Ok(TsaAuthority::new(leaf.clone(), between.to_vec(), anchor.clone(), Some(window)))
        }
        [..] => Err(bad("has too many certificates")),
    }
}
