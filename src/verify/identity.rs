//! [`SigningIdentity`]: what a Fulcio certificate says of its holder; `docs/oid-info.md` of Fulcio, rule C-34.

use std::fmt;

use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::Extension as RawExtension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

use crate::diagnostic::Code;

use super::certificate::SUBJECT_ALT_NAME;

/// What a certificate says of its holder. Whether the certificate may be believed is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningIdentity {
    subject: SubjectName,
    extensions: Vec<(Extension, String)>,
}

/// The one name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// An e-mail address.
    Email(String),
    /// A name of Fulcio's own kind, `NAME!DOMAIN`.
    Other(String),
    /// A URI, as workflows have.
    Uri(String),
}

impl SubjectName {
    /// The name, whatever its kind.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Email(name) | Self::Other(name) | Self::Uri(name) => name,
        }
    }

    /// The name, if it is an e-mail address.
    pub fn email(&self) -> Option<&str> {
        match self {
            Self::Email(name) => Some(name),
            Self::Other(_) | Self::Uri(_) => None,
        }
    }

    /// The name, if it is a URI.
    pub fn uri(&self) -> Option<&str> {
        match self {
            Self::Uri(name) => Some(name),
            Self::Email(_) | Self::Other(_) => None,
        }
    }
}

impl SigningIdentity {
    /// Reads a certificate. What could be understood in two ways is refused.
    pub fn from_certificate(der: &[u8]) -> Result<Self, Malformed> {
        if der.len() > CERTIFICATE_BYTES {
            return Err(Malformed::Large);
        }
        let certificate = Certificate::from_der(der).map_err(|_| Malformed::Certificate)?;
        let raw = certificate.tbs_certificate.extensions.unwrap_or_default();
        let repeated = raw
            .iter()
            .enumerate()
            .any(|(at, one)| raw.iter().skip(at.saturating_add(1)).any(|other| other.extn_id == one.extn_id));
        if repeated {
            return Err(Malformed::Repeated);
        }
        let subject = subject(&raw)?;
        let mut extensions = Vec::new();
        for extension in Extension::ALL {
            if let Some(raw) = raw.iter().find(|raw| raw.extn_id == extension.oid()) {
                extensions.push((extension, extension.read(raw.extn_value.as_bytes())?));
            }
        }
        let read = Self { subject, extensions };
        match (read.raw(Extension::Issuer), read.raw(Extension::IssuerV2)) {
            (Some(one), Some(other)) if one != other => Err(Malformed::Issuers),
            (Some(_) | None, _) => Ok(read),
        }
    }

    /// The one name.
    pub fn subject(&self) -> &SubjectName {
        &self.subject
    }

    /// Who vouched for the holder.
    pub fn issuer(&self) -> Option<&str> {
        self.extension(Extension::IssuerV2).or_else(|| self.extension(Extension::Issuer))
    }

    /// What an extension says; an empty one says nothing, as in Fulcio.
    pub fn extension(&self, extension: Extension) -> Option<&str> {
        self.raw(extension).filter(|value| !value.is_empty())
    }

    fn raw(&self, extension: Extension) -> Option<&str> {
        self.extensions.iter().find(|(known, _)| *known == extension).map(|(_, value)| value.as_str())
    }
}

/// The name, if there is exactly one, of a kind that Fulcio writes.
fn subject(extensions: &[RawExtension]) -> Result<SubjectName, Malformed> {
    let raw = extensions.iter().find(|raw| raw.extn_id == SUBJECT_ALT_NAME).ok_or(Malformed::Names)?;
    let names = SubjectAltName::from_der(raw.extn_value.as_bytes()).map_err(|_| Malformed::Names)?;
    let [name] = names.0.as_slice() else { return Err(Malformed::Names) };
    let name = match name {
        GeneralName::Rfc822Name(name) => SubjectName::Email(name.as_str().to_owned()),
        GeneralName::UniformResourceIdentifier(name) => SubjectName::Uri(name.as_str().to_owned()),
        GeneralName::OtherName(name) => SubjectName::Other(other_name(name)?),
        GeneralName::DnsName(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::IpAddress(_)
        | GeneralName::RegisteredId(_) => return Err(Malformed::Names),
    };
    match name.as_str().len() {
        0 => Err(Malformed::Names),
        length if length > VALUE_BYTES => Err(Malformed::Large),
        _ => Ok(name),
    }
}

fn other_name(name: &OtherName) -> Result<String, Malformed> {
    if name.type_id != OTHER_NAME {
        return Err(Malformed::Names);
    }
    let der = name.value.to_der().map_err(|_| Malformed::Names)?;
    Utf8StringRef::from_der(&der).map(|text| text.as_str().to_owned()).map_err(|_| Malformed::Names)
}

macro_rules! extensions {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $oid:literal $name:literal,)+) => {
        /// What Fulcio says of a holder, by the last number of its OID below 1.3.6.1.4.1.57264.1.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Extension {
            $($(#[$doc])* $variant,)+
        }

        impl Extension {
            /// Every one that is known, by number.
            pub const ALL: [Self; 23] = [$(Self::$variant),+];

            /// The last number of the OID.
            pub fn number(self) -> u8 {
                match self {
                    $(Self::$variant => $number,)+
                }
            }

            /// Its identifier.
            pub(in crate::verify) fn oid(self) -> ObjectIdentifier {
                match self {
                    $(Self::$variant => const { ObjectIdentifier::new_unwrap($oid) },)+
                }
            }

            /// Fulcio's name of it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

extensions! {
    /// Who vouched for the holder, in old certificates.
    Issuer = 1 "1.3.6.1.4.1.57264.1.1" "Issuer",
    /// The event on GitHub, in old certificates.
    GithubWorkflowTrigger = 2 "1.3.6.1.4.1.57264.1.2" "GitHub Workflow Trigger",
    /// The commit on GitHub, in old certificates.
    GithubWorkflowSha = 3 "1.3.6.1.4.1.57264.1.3" "GitHub Workflow SHA",
    /// The name of the workflow on GitHub, in old certificates.
    GithubWorkflowName = 4 "1.3.6.1.4.1.57264.1.4" "GitHub Workflow Name",
    /// `owner/name` of the repository on GitHub, in old certificates.
    GithubWorkflowRepository = 5 "1.3.6.1.4.1.57264.1.5" "GitHub Workflow Repository",
    /// The branch or tag on GitHub, in old certificates.
    GithubWorkflowRef = 6 "1.3.6.1.4.1.57264.1.6" "GitHub Workflow Ref",
    /// Who vouched for the holder.
    IssuerV2 = 8 "1.3.6.1.4.1.57264.1.8" "Issuer (V2)",
    /// The workflow that signed.
    BuildSignerUri = 9 "1.3.6.1.4.1.57264.1.9" "Build Signer URI",
    /// The commit of that workflow.
    BuildSignerDigest = 10 "1.3.6.1.4.1.57264.1.10" "Build Signer Digest",
    /// Whose machine it was.
    RunnerEnvironment = 11 "1.3.6.1.4.1.57264.1.11" "Runner Environment",
    /// The repository.
    SourceRepositoryUri = 12 "1.3.6.1.4.1.57264.1.12" "Source Repository URI",
    /// The commit.
    SourceRepositoryDigest = 13 "1.3.6.1.4.1.57264.1.13" "Source Repository Digest",
    /// The branch or tag.
    SourceRepositoryRef = 14 "1.3.6.1.4.1.57264.1.14" "Source Repository Ref",
    /// The number of the repository.
    SourceRepositoryIdentifier = 15 "1.3.6.1.4.1.57264.1.15" "Source Repository Identifier",
    /// The owner of the repository.
    SourceRepositoryOwnerUri = 16 "1.3.6.1.4.1.57264.1.16" "Source Repository Owner URI",
    /// The number of the owner.
    SourceRepositoryOwnerIdentifier = 17 "1.3.6.1.4.1.57264.1.17" "Source Repository Owner Identifier",
    /// The workflow that was started.
    BuildConfigUri = 18 "1.3.6.1.4.1.57264.1.18" "Build Config URI",
    /// The commit of that workflow.
    BuildConfigDigest = 19 "1.3.6.1.4.1.57264.1.19" "Build Config Digest",
    /// The event.
    BuildTrigger = 20 "1.3.6.1.4.1.57264.1.20" "Build Trigger",
    /// The run.
    RunInvocationUri = 21 "1.3.6.1.4.1.57264.1.21" "Run Invocation URI",
    /// Who could see the repository.
    SourceRepositoryVisibility = 22 "1.3.6.1.4.1.57264.1.22" "Source Repository Visibility At Signing",
    /// The deployment environment.
    DeploymentEnvironment = 23 "1.3.6.1.4.1.57264.1.23" "Deployment Environment",
    /// The subject of the token.
    TokenSubject = 24 "1.3.6.1.4.1.57264.1.24" "Token Subject",
}

impl Extension {
    /// Up to .6 the bytes are the text; from .8 on they are a DER UTF8String.
    fn read(self, bytes: &[u8]) -> Result<String, Malformed> {
        let malformed = Malformed::Extension(self);
        if bytes.len() > VALUE_BYTES {
            return Err(Malformed::Large);
        }
        let text = if self.number() < 8 {
            std::str::from_utf8(bytes).map_err(|_| malformed)?
        } else {
            Utf8StringRef::from_der(bytes).map_err(|_| malformed)?.as_str()
        };
        Ok(text.to_owned())
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" (.{})", self.name(), self.number())
    }
}

/// Why a certificate does not say clearly whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It is no certificate, or something follows it.
    #[error("it is not one X.509 certificate")]
    Certificate,
    /// An extension is not encoded as it must be.
    #[error("the extension {0} is not encoded as Fulcio does")]
    Extension(Extension),
    /// .1 and .8 differ (rule C-34).
    #[error("its two extensions about the issuer differ")]
    Issuers,
    /// The certificate, or a value in it, is beyond its limit.
    #[error("it is too large")]
    Large,
    /// No name, several, or one of another kind.
    #[error("it does not have exactly one name that is an e-mail address, a URI or Fulcio's other name")]
    Names,
    /// An extension is there twice.
    #[error("it has an extension twice")]
    Repeated,
}

/// What a certificate is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The commit.
    Commit,
    /// Who vouched.
    Issuer,
    /// The branch or tag.
    Ref,
    /// The repository, its number or its owner.
    Repository,
    /// The machine.
    Runner,
    /// The name in the certificate.
    Subject,
    /// The event.
    Trigger,
    /// The workflow that was started, or that signed.
    Workflow,
}

impl Part {
    /// The code of a difference.
    pub(in crate::verify) fn code(self) -> Code {
        match self {
            Self::Commit => Code::IdentityMismatchCommit,
            Self::Issuer => Code::IdentityMismatchIssuer,
            Self::Ref => Code::IdentityMismatchRef,
            Self::Repository => Code::IdentityMismatchRepository,
            Self::Runner => Code::IdentityMismatchRunner,
            Self::Subject => Code::IdentityMismatchSubject,
            Self::Trigger => Code::IdentityMismatchTrigger,
            Self::Workflow => Code::IdentityMismatchWorkflow,
        }
    }

    /// How it is called in messages.
    pub(in crate::verify) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Issuer => "issuer",
            Self::Ref => "branch or tag",
            Self::Repository => "source repository",
            Self::Runner => "runner environment",
            Self::Subject => "subject",
            Self::Trigger => "trigger",
            Self::Workflow => "workflow",
        }
    }
}

/// Largest certificate: 16 KiB. Fulcio's take two. Reading one takes time by the square of its length (T-28).
pub const CERTIFICATE_BYTES: usize = 16 << 10;

/// Longest value: 4 KiB. The longest that Fulcio writes is an address with the names of a repository, file and branch.
pub const VALUE_BYTES: usize = 4 << 10;

/// The kind of other name that Fulcio writes.
const OTHER_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.7");
