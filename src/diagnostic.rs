//! [`Code`] and [`Diagnostic`]: what can be said about a policy, a signature or a run, and where.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// A stable name for one cause, the same in text, JSON, journal and on the bus.
        ///
        /// Each is described in vouchd-codes(7); a test holds the page and this list together.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)+
        }

        impl Code {
            /// Every code, in alphabetical order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The kebab-case text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

codes! {
    /// The caller may not ask the daemon.
    AccessDenied = "access-denied",
    /// The manifest lacks an annotation that the requirement wants.
    AnnotationMismatch = "annotation-mismatch",
    /// registries.d does not enable attachments and no other signature was found.
    AttachmentsDisabled = "attachments-disabled",
    /// An authentication file cannot be read or understood.
    AuthFileInvalid = "auth-file-invalid",
    /// An authority of the policy has expired, or soon will.
    AuthorityExpired = "authority-expired",
    /// The policy trusts authorities that vouch for anybody.
    AuthorityTooBroad = "authority-too-broad",
    /// Who asks the daemon must prove who that is.
    AuthorizationRequired = "authorization-required",
    /// The cryptographic check failed with every key the requirement accepts.
    BadSignature = "bad-signature",
    /// The certificate of a Sigstore bundle is not to be trusted.
    BundleCertificate = "bundle-certificate",
    /// A Sigstore bundle is not well formed.
    BundleMalformed = "bundle-malformed",
    /// The signature in a Sigstore bundle does not verify.
    BundleSignature = "bundle-signature",
    /// A Sigstore bundle has another kind of signer than wanted.
    BundleSigner = "bundle-signer",
    /// A Sigstore bundle is about something else.
    BundleSubject = "bundle-subject",
    /// A Sigstore bundle uses something that does not count.
    BundleUnsupported = "bundle-unsupported",
    /// The daemon was asked for and is not there, or the bus failed.
    BusUnavailable = "bus-unavailable",
    /// The caller cancelled the verification.
    Cancelled = "cancelled",
    /// Certificates for a registry cannot be read or understood.
    CertificatesInvalid = "certificates-invalid",
    /// The clock of this host says a time that has passed.
    ClockImplausible = "clock-implausible",
    /// The policy wants a signed tag, which cosign does not write.
    CosignSignsNoTag = "cosign-signs-no-tag",
    /// A credential helper gave no answer, or may not be asked.
    CredentialHelperFailed = "credential-helper-failed",
    /// Images that no scope names are accepted unsigned.
    DefaultAcceptsAnything = "default-accepts-anything",
    /// What a caller handed over cannot be read.
    DescriptorInvalid = "descriptor-invalid",
    /// The manifest is not the one a digest names.
    DigestMismatch = "digest-mismatch",
    /// One object has a member twice.
    DuplicateKey = "duplicate-key",
    /// More was sent than one verification may hold.
    EvidenceTooLarge = "evidence-too-large",
    /// A member of the policy is vouchd's own.
    ExtensionKey = "extension-key",
    /// There is more to say about a policy than is said.
    FindingsOmitted = "findings-omitted",
    /// The certificate does not say what the requirement asks about.
    IdentityExtensionMissing = "identity-extension-missing",
    /// Another repository called the workflow that signed.
    IdentityForeignCaller = "identity-foreign-caller",
    /// A workflow of another repository signed.
    IdentityForeignWorkflow = "identity-foreign-workflow",
    /// The certificate contradicts itself.
    IdentityInconsistent = "identity-inconsistent",
    /// The certificate does not say clearly whose it is.
    IdentityMalformed = "identity-malformed",
    /// The signature names another image.
    IdentityMismatch = "identity-mismatch",
    /// The signer built another commit.
    IdentityMismatchCommit = "identity-mismatch-commit",
    /// Another party vouched for the signer.
    IdentityMismatchIssuer = "identity-mismatch-issuer",
    /// The signer built another branch or tag.
    IdentityMismatchRef = "identity-mismatch-ref",
    /// The signer built another repository.
    IdentityMismatchRepository = "identity-mismatch-repository",
    /// The signer ran on another kind of machine.
    IdentityMismatchRunner = "identity-mismatch-runner",
    /// The certificate is for somebody else.
    IdentityMismatchSubject = "identity-mismatch-subject",
    /// Another event started the signer.
    IdentityMismatchTrigger = "identity-mismatch-trigger",
    /// Another workflow signed.
    IdentityMismatchWorkflow = "identity-mismatch-workflow",
    /// The signature names no image.
    IdentityNotSigned = "identity-not-signed",
    /// A requirement adds nothing to those beside it.
    IdleRequirement = "idle-requirement",
    /// The image was another one for each of two policies.
    ImageChanged = "image-changed",
    /// The registry has no such image.
    ImageNotFound = "image-not-found",
    /// A fault of vouchd itself.
    InternalError = "internal-error",
    /// A base64 member is not valid.
    InvalidBase64 = "invalid-base64",
    /// A signedIdentity object is not valid.
    InvalidIdentity = "invalid-identity",
    /// The document is not JSON.
    InvalidJson = "invalid-json",
    /// A regular expression cannot be used.
    InvalidPattern = "invalid-pattern",
    /// A remapIdentity prefix is not valid.
    InvalidPrefix = "invalid-prefix",
    /// The image name cannot be understood.
    InvalidReference = "invalid-reference",
    /// A requirement object is not valid.
    InvalidRequirement = "invalid-requirement",
    /// A scope is not valid for its transport.
    InvalidScope = "invalid-scope",
    /// A value has the wrong JSON type.
    InvalidType = "invalid-type",
    /// A member has a value that is not allowed.
    InvalidValue = "invalid-value",
    /// The signing key has expired.
    KeyExpired = "key-expired",
    /// A key of the policy expires within weeks.
    KeyExpiresSoon = "key-expires-soon",
    /// A file of keys or certificates holds none that can be used.
    KeyFileInvalid = "key-file-invalid",
    /// A key file cannot be read.
    KeyFileUnreadable = "key-file-unreadable",
    /// The signing key has been revoked.
    KeyRevoked = "key-revoked",
    /// A member of the policy is newer than a tool that reads it.
    KeyTooNew = "key-too-new",
    /// The signature was made by a key that the requirement does not name.
    KeyUnknown = "key-unknown",
    /// The key may not make this kind of signature.
    KeyUnusable = "key-unusable",
    /// A local image cannot be read.
    LocalImageInvalid = "local-image-invalid",
    /// The proof that a signature was logged does not hold.
    LogEntryInvalid = "log-entry-invalid",
    /// A log entry is about another signature.
    LogEntryMismatch = "log-entry-mismatch",
    /// A signature has no proof that it was logged.
    LogEntryMissing = "log-entry-missing",
    /// Nothing says where the signatures of a scope are.
    LookasideMissing = "lookaside-missing",
    /// A signature in a lookaside store cannot be read.
    LookasideUnavailable = "lookaside-unavailable",
    /// A regular expression matches more than it seems to.
    LoosePattern = "loose-pattern",
    /// The manifest cannot be used for this question.
    ManifestInvalid = "manifest-invalid",
    /// The signed payload is not well formed.
    MalformedPayload = "malformed-payload",
    /// A signature is not well formed.
    MalformedSignature = "malformed-signature",
    /// A mandatory member is missing.
    MissingKey = "missing-key",
    /// No image can satisfy the requirements of a scope.
    NeverSatisfied = "never-satisfied",
    /// The image index has no image for the platform.
    NoMatchingPlatform = "no-matching-platform",
    /// What is attached is an attestation or something else, not a signature.
    NotASignature = "not-a-signature",
    /// vouchd and other tools have policies with different meanings.
    PoliciesDiffer = "policies-differ",
    /// The policy file cannot be used.
    PolicyInvalid = "policy-invalid",
    /// No policy file was found.
    PolicyMissing = "policy-missing",
    /// Another policy counts in place of the system's.
    PolicyOverridden = "policy-overridden",
    /// The policy file cannot be read.
    PolicyUnreadable = "policy-unreadable",
    /// Others may not read a file that the policy names.
    PrivateFile = "private-file",
    /// A proxy is set that cannot be used.
    ProxyInvalid = "proxy-invalid",
    /// A scope says what the wider scope says already.
    RedundantScope = "redundant-scope",
    /// A certificate may be for any branch or pull request.
    RefsOpen = "refs-open",
    /// A file of registries.conf cannot be used.
    RegistriesConfInvalid = "registries-conf-invalid",
    /// A file under registries.d cannot be used.
    RegistriesDInvalid = "registries-d-invalid",
    /// The registry wants other credentials.
    RegistryAuth = "registry-auth",
    /// registries.conf blocks the image's registry.
    RegistryBlocked = "registry-blocked",
    /// The policy names no scope of the registry, and who asks is not root.
    RegistryNotNamed = "registry-not-named",
    /// The registry answered with something that is not allowed.
    RegistryProtocol = "registry-protocol",
    /// The registry cannot be reached, or failed.
    RegistryUnavailable = "registry-unavailable",
    /// Images are refused although a wider scope accepts signed ones.
    RejectUnderSigned = "reject-under-signed",
    /// The policy has a reject requirement for this image.
    RejectedByPolicy = "rejected-by-policy",
    /// A file of the policy depends on the working directory.
    RelativePath = "relative-path",
    /// A scope has the same requirement twice.
    RepeatedRequirement = "repeated-requirement",
    /// A certificate is to be for a repository, where only a workflow can be named.
    RepositoryAsSubject = "repository-as-subject",
    /// A scope matches only names with the same upper-case letters in the host.
    ScopeHostCase = "scope-host-case",
    /// A scope can match no image.
    ScopeNeverMatches = "scope-never-matches",
    /// No log of certificates vouches for a certificate.
    SctInvalid = "sct-invalid",
    /// A file of the policy holds a secret key.
    SecretKey = "secret-key",
    /// A key file holds more keys than all tools read.
    SeveralKeys = "several-keys",
    /// A key depends on a self-signature with SHA-1.
    Sha1BoundKey = "sha1-bound-key",
    /// One signer counts in several scopes, by signatures that name no image.
    SharedSigner = "shared-signer",
    /// A short name does not lead to exactly one image.
    ShortName = "short-name",
    /// Nothing was verified although it was asked for.
    SignatureRequired = "signature-required",
    /// The signature has expired.
    SignatureExpired = "signature-expired",
    /// The signature does not say what the caller wants it to say.
    SignedAnnotationMismatch = "signed-annotation-mismatch",
    /// The certificate of a signature was not valid at the time that counts.
    SigningCertificateExpired = "signing-certificate-expired",
    /// The certificate of a signature cannot be read.
    SigningCertificateInvalid = "signing-certificate-invalid",
    /// A signature has no certificate.
    SigningCertificateMissing = "signing-certificate-missing",
    /// The certificate of a signature is not from an authority that the policy trusts.
    SigningCertificateUntrusted = "signing-certificate-untrusted",
    /// A certificate for a workflow may be for any repository that calls it.
    SourceRepositoryOpen = "source-repository-open",
    /// The system's policy is older than the vendor's.
    StalePolicyCopy = "stale-policy-copy",
    /// A file of storage.conf cannot be used.
    StorageConfInvalid = "storage-conf-invalid",
    /// An e-mail address of the policy is none.
    SubjectNotEmail = "subject-not-email",
    /// Any signed image of a repository counts for every tag of it.
    TagSubstitution = "tag-substitution",
    /// The deadline passed.
    TimedOut = "timed-out",
    /// A timestamp does not prove a time.
    TimestampInvalid = "timestamp-invalid",
    /// A proven time is demanded and there is none.
    TimestampMissing = "timestamp-missing",
    /// A registry does not prove who it is.
    TlsError = "tls-error",
    /// The daemon is doing as much as it may.
    TooManyRequests = "too-many-requests",
    /// A trusted root cannot be used.
    TrustedRootInvalid = "trusted-root-invalid",
    /// A trusted root is older than the policy allows.
    TrustedRootStale = "trusted-root-stale",
    /// A trusted root could not be updated.
    TrustedRootUpdate = "trusted-root-update",
    /// No verification of the caller has the cookie.
    UnknownCookie = "unknown-cookie",
    /// A member is not known.
    UnknownKey = "unknown-key",
    /// Scopes stand under a transport that does not exist.
    UnknownTransport = "unknown-transport",
    /// The type of a requirement or identity is not known.
    UnknownType = "unknown-type",
    /// The image has no signature that could count.
    Unsigned = "unsigned",
    /// A setting beside the policy is not read.
    UnreadSetting = "unread-setting",
    /// Images are accepted unsigned within a scope that wants signatures.
    UnsignedException = "unsigned-exception",
    /// The policy asks for something that this version cannot check.
    Unsupported = "unsupported",
    /// Images of this transport cannot be read.
    UnsupportedTransport = "unsupported-transport",
    /// The command line is wrong.
    Usage = "usage",
    /// A file of vouchd's own configuration cannot be used.
    VouchdTomlInvalid = "vouchd-toml-invalid",
    /// The signature uses an algorithm that is too weak.
    WeakAlgorithm = "weak-algorithm",
    /// Everybody can change a file that decides.
    WritableFile = "writable-file",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Probably not what was meant.
    Warning,
    /// The document cannot be used.
    Error,
}

/// A range of bytes in a document, end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// First byte after.
    pub end: usize,
}

/// A place in a document, both numbers from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Span {
    /// Where the span begins in `document`.
    pub fn position(self, document: &[u8]) -> Position {
        let before = document.get(..self.start).unwrap_or(document);
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at.saturating_add(1));
        let line = before.iter().filter(|b| **b == b'\n').count().saturating_add(1);
        let text = String::from_utf8_lossy(before.get(line_start..).unwrap_or_default());
        Position { line, column: text.chars().count().saturating_add(1) }
    }
}

/// Where many offsets of one document are, found in one pass over it.
#[derive(Clone, Debug, Default)]
pub struct Positions(Vec<(usize, Position)>);

impl Positions {
    /// The positions of `offsets` in `document`; each is where [`Span::position`] finds it.
    pub fn of(document: &[u8], mut offsets: Vec<usize>) -> Self {
        offsets.sort_unstable();
        offsets.dedup();
        let (mut at, mut line, mut column) = (0, 1_usize, 1_usize);
        let mut found = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let mut passed = document.get(at..offset).or_else(|| document.get(at..)).unwrap_or_default();
            at = at.saturating_add(passed.len());
            let newlines = passed.iter().filter(|byte| **byte == b'\n').count();
            if newlines > 0 {
                line = line.saturating_add(newlines);
                column = 1;
                passed = passed.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            }
            column = column.saturating_add(String::from_utf8_lossy(passed).chars().count());
            found.push((offset, Position { line, column }));
        }
        Self(found)
    }

    /// The position of one of the offsets.
    pub fn at(&self, offset: usize) -> Option<Position> {
        let index = self.0.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.0.get(index).map(|(_, position)| *position)
    }
}

/// One thing to say about a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The cause.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub span: Span,
    /// What is wrong, lower case, no full stop; text from the document is escaped.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// `text` with everything that could act on a terminal or a log escaped.
///
/// Printable characters stay, including those outside ASCII; control characters, bidirectional
/// controls, zero-width characters and line separators become `\u{…}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hazardous(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The known name that is at most two edits away, letter case aside.
pub fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|known| (distance(&lower, &known.to_lowercase()), *known))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Levenshtein distance; more than 64 characters are too far from anything.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i.saturating_add(1);
        let mut next = vec![left];
        for (above, y) in row.iter().skip(1).zip(b.chars()) {
            let substituted = corner.saturating_add(usize::from(x != y));
            left = substituted.min(above.saturating_add(1)).min(left.saturating_add(1));
            corner = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// The beginning of a text from outside, at most 256 characters, to be kept for a message (T-28).
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(CLIPPED) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
        None => text.to_owned(),
    }
}

/// Most characters of a text from outside in a message.
const CLIPPED: usize = 256;

/// A JSON text with the same characters escaped as JSON does it.
pub fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hazardous(c) {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_kebab_case_and_sorted() {
        let texts: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        let mut sorted = texts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), texts.len());
        for text in texts {
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{text}"
            );
        }
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a\nbé c\n".as_bytes();
        for (start, line, column) in [(0, 1, 1), (2, 2, 1), (5, 2, 3), (8, 3, 1), (99, 3, 1)] {
            let span = Span { start, end: start };
            assert_eq!(span.position(text), Position { line, column }, "{start}");
        }
    }

    #[test]
    fn many_positions_are_those_of_each() {
        for text in ["", "a", "a\nbé c\n", "\n\n", "\u{1f600}é\r\nx", "no end"] {
            let bytes = text.as_bytes();
            let starts: Vec<usize> =
                (0..=bytes.len() + 1).filter(|at| text.is_char_boundary(*at) || *at > bytes.len()).collect();
            for step in 1..4 {
                let offsets: Vec<usize> = starts.iter().copied().step_by(step).collect();
                let positions = Positions::of(bytes, offsets.iter().rev().copied().collect());
                for start in offsets {
                    let wanted = Span { start, end: start }.position(bytes);
                    assert_eq!(positions.at(start), Some(wanted), "{text:?} {start}");
                }
                assert_eq!(positions.at(99), None);
            }
        }
    }

    #[test]
    fn control_and_direction_characters_are_escaped() {
        assert_eq!(escape("a\x1b[31m\u{202e}é\n"), "a\\u{1b}[31m\\u{202e}é\\u{a}");
        let hostile = "\u{9b}31m\u{202e}\u{e0041}é";
        let json = escape_json(&serde_json::to_string(hostile).unwrap());
        assert_eq!(json, "\"\\u009b31m\\u202e\\udb40\\udc41é\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }

    #[test]
    fn distances_are_edits() {
        for (a, b, wanted) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("keypaths", "keypath", 1)]
        {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
        }
    }
}
