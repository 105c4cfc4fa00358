//! [`Error`]: the named errors of the interface.

use zbus::DBusError;

use crate::config;
use crate::diagnostic::{Code, escape};
use crate::digest::Digest;
use crate::engine::{self, NoTurn};
use crate::fetch;
use crate::reference::Transport;
use crate::report::Report;

use super::polkit::Action;

/// Why there is no permission to use the image. Each text begins with a stable code in brackets.
#[derive(Clone, Debug, DBusError)]
#[zbus(prefix = "org")]
#[non_exhaustive]
pub enum Error {
    /// The caller may not ask.
    #[zbus(name = "freedesktop.DBus.Error.AccessDenied")]
    AccessDenied(String),
    /// The caller must prove who it is, and did not let itself be asked.
    #[zbus(name = "freedesktop.DBus.Error.InteractiveAuthorizationRequired")]
    AuthorizationRequired(String),
    /// What the caller handed over as a descriptor cannot be read.
    #[zbus(name = "vouchd.Verifier1.Error.BadFileDescriptor")]
    BadFileDescriptor(String),
    /// The caller cancelled the verification.
    #[zbus(name = "vouchd.Verifier1.Error.Cancelled")]
    Cancelled(String),
    /// Something else than the policy that the administrator wrote cannot be used.
    #[zbus(name = "vouchd.Verifier1.Error.ConfigurationInvalid")]
    ConfigurationInvalid(String),
    /// The image is not the one that a digest names.
    #[zbus(name = "vouchd.Verifier1.Error.DigestMismatch")]
    DigestMismatch(String),
    /// A fault of the service itself; asking again may help.
    #[zbus(name = "vouchd.Verifier1.Error.Internal")]
    Internal(String),
    /// An argument or option is wrong.
    #[zbus(name = "freedesktop.DBus.Error.InvalidArgs")]
    InvalidArgs(String),
    /// The image name cannot be understood.
    #[zbus(name = "vouchd.Verifier1.Error.InvalidReference")]
    InvalidReference(String),
    /// More was sent than one verification may hold.
    #[zbus(name = "vouchd.Verifier1.Error.ManifestTooLarge")]
    ManifestTooLarge(String),
    /// There is no such image, or none for the platform.
    #[zbus(name = "vouchd.Verifier1.Error.NotFound")]
    NotFound(String),
    /// The policy cannot be used; every image is refused.
    #[zbus(name = "vouchd.Verifier1.Error.PolicyInvalid")]
    PolicyInvalid(String),
    /// There is no policy; every image is refused.
    #[zbus(name = "vouchd.Verifier1.Error.PolicyMissing")]
    PolicyMissing(String),
    /// The registry wants other credentials.
    #[zbus(name = "vouchd.Verifier1.Error.RegistryAuth")]
    RegistryAuth(String),
    /// A registry or lookaside store failed, or what it holds is broken; asking again may help.
    #[zbus(name = "vouchd.Verifier1.Error.RegistryUnavailable")]
    RegistryUnavailable(String),
    /// The policy refuses the image.
    #[zbus(name = "vouchd.Verifier1.Error.Rejected")]
    Rejected(String),
    /// The policy accepts the image, but nothing was verified.
    #[zbus(name = "vouchd.Verifier1.Error.SignatureRequired")]
    SignatureRequired(String),
    /// The deadline passed; asking again may help.
    #[zbus(name = "vouchd.Verifier1.Error.TimedOut")]
    TimedOut(String),
    /// The registry does not prove who it is, or does not speak TLS.
    #[zbus(name = "vouchd.Verifier1.Error.TlsError")]
    TlsError(String),
    /// Too much is being verified; ask again later.
    #[zbus(name = "vouchd.Verifier1.Error.TooManyRequests")]
    TooManyRequests(String),
    /// No verification of the caller has this cookie.
    #[zbus(name = "vouchd.Verifier1.Error.UnknownCookie")]
    UnknownCookie(String),
    /// The policy asks for something that this version cannot check; the image is refused.
    #[zbus(name = "vouchd.Verifier1.Error.UnsupportedRequirement")]
    UnsupportedRequirement(String),
    /// Images of this transport cannot be judged by the service.
    #[zbus(name = "vouchd.Verifier1.Error.UnsupportedTransport")]
    UnsupportedTransport(String),
    /// The bus failed, or an error came that is none of these.
    #[zbus(error)]
    ZBus(zbus::Error),
}

impl Error {
    /// The code at the beginning of the text. Errors that do not come from vouchd have none.
    pub fn code(&self) -> Option<&str> {
        self.parts().map(|(code, _)| code)
    }

    /// The text without code and help.
    pub fn message(&self) -> String {
        match (self.parts(), self) {
            (Some((_, text)), _) => split_help(text).0.to_owned(),
            (None, Self::ZBus(error)) => error.to_string(),
            (None, _) => self.to_string(),
        }
    }

    /// What can be done about it; empty if the error does not say.
    pub fn help(&self) -> &str {
        self.parts().map(|(_, text)| split_help(text).1).unwrap_or_default()
    }

    /// Whether the fault is in what the administrator wrote: the policy, the configuration or a key.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::ConfigurationInvalid(_) | Self::PolicyInvalid(_) | Self::PolicyMissing(_))
    }

    /// Whether it was the caller who did not want the answer any more.
    pub(super) fn is_of_caller(&self) -> bool {
        matches!(self, Self::Cancelled(_) | Self::ZBus(_))
    }

    fn parts(&self) -> Option<(&str, &str)> {
        if matches!(self, Self::ZBus(_)) {
            return None;
        }
        let (code, message) = self.description()?.strip_prefix('[')?.split_once("] ")?;
        let known = |b: u8| b.is_ascii_lowercase() || b == b'-';
        (!code.is_empty() && code.bytes().all(known)).then_some((code, message))
    }

    /// Why the engine reached no verdict.
    pub(super) fn of_engine(error: &engine::Error) -> Self {
        let text = helpful_text(error.code().as_str(), &error.to_string(), error.help());
        match error {
            engine::Error::Config(error) => Self::of_config(error, text),
            engine::Error::Fetch(error) => Self::of_fetch(error, text),
            engine::Error::ClockImplausible { .. } | engine::Error::Internal(_) => Self::Internal(text),
            engine::Error::NoTurn(_) => Self::TooManyRequests(text),
            engine::Error::NotNamed { .. } => Self::AccessDenied(text),
            engine::Error::PolicyInvalid { .. } => Self::PolicyInvalid(text),
            engine::Error::Reference { .. } => Self::InvalidReference(text),
        }
    }

    fn of_config(error: &config::Error, text: String) -> Self {
        match error {
            config::Error::Conflict { .. }
            | config::Error::Endpoint { .. }
            | config::Error::LookasideUrl { .. }
            | config::Error::RegistriesConf { .. }
            | config::Error::RegistriesConfVersion { .. }
            | config::Error::RegistriesD { .. }
            | config::Error::StorageConf { .. }
            | config::Error::TrustedRoot { .. }
            | config::Error::VouchdToml { .. } => Self::ConfigurationInvalid(text),
            config::Error::RegistryBlocked { .. } => Self::RegistryUnavailable(text),
            config::Error::ShortName { .. } => Self::InvalidReference(text),
            config::Error::PolicyMissing { .. } => Self::PolicyMissing(text),
            config::Error::PolicyUnreadable { .. } | config::Error::PolicyUntrusted { .. } => {
                Self::PolicyInvalid(text)
            }
        }
    }

    fn of_fetch(error: &fetch::Error, text: String) -> Self {
        match error {
            fetch::Error::Config(error) => Self::of_config(error, text),
            fetch::Error::Busy => Self::TooManyRequests(text),
            fetch::Error::AuthFile { .. }
            | fetch::Error::Certificates { .. }
            | fetch::Error::CredentialHelper { .. }
            | fetch::Error::CredentialStores { .. }
            | fetch::Error::KeyFile { .. }
            | fetch::Error::Proxy { .. } => Self::ConfigurationInvalid(text),
            fetch::Error::Endpoints { last, .. } => Self::of_fetch(last, text),
            fetch::Error::DigestMismatch { .. } => Self::DigestMismatch(text),
            fetch::Error::EvidenceTooLarge => Self::ManifestTooLarge(text),
            fetch::Error::ImageNotFound { .. } | fetch::Error::NoMatchingPlatform { .. } => {
                Self::NotFound(text)
            }
            fetch::Error::Local { .. } => Self::Internal(text),
            fetch::Error::RegistryAuth { .. } => Self::RegistryAuth(text),
            fetch::Error::Lookaside { .. }
            | fetch::Error::MalformedSignature { .. }
            | fetch::Error::Manifest { .. }
            | fetch::Error::RegistryProtocol { .. }
            | fetch::Error::RegistryUnavailable { .. } => Self::RegistryUnavailable(text),
            fetch::Error::TimedOut { .. } => Self::TimedOut(text),
            fetch::Error::Tls { .. } => Self::TlsError(text),
            fetch::Error::UnsupportedTransport(_) => Self::UnsupportedTransport(text),
        }
    }

    /// The refusal that `report` describes.
    pub(super) fn of_denial(report: &Report) -> Self {
        let code = report.code.as_deref().unwrap_or(Code::RejectedByPolicy.as_str());
        let scope = report.scope.as_ref().map(|scope| match &scope.transport {
            Some(transport) => format!("the scope is {transport} \"{}\"", scope.name),
            None => "the scope is \"default\"".to_owned(),
        });
        let help: Vec<String> = report.help.iter().cloned().chain(scope).collect();
        let message = report.message.as_deref().unwrap_or("the policy refuses the image");
        let text = helpful_text(code, message, &help.join("; "));
        if code == Code::SignatureRequired.as_str() {
            Self::SignatureRequired(text)
        } else if code == Code::Unsupported.as_str() {
            Self::UnsupportedRequirement(text)
        } else {
            Self::Rejected(text)
        }
    }

    pub(super) fn access_denied(message: &str, help: &str) -> Self {
        Self::AccessDenied(helpful_text(Code::AccessDenied.as_str(), message, help))
    }

    pub(super) fn authorization_required(action: &str) -> Self {
        let message = format!("the action {action} wants the caller, or an administrator, to authenticate");
        let help = "allow interactive authorization in the call, or ask as root";
        Self::AuthorizationRequired(helpful_text(Code::AuthorizationRequired.as_str(), &message, help))
    }

    /// The same for a caller who may not use the credentials of this host, which may be why.
    pub(super) fn of_anonymous(self) -> Self {
        let Self::RegistryAuth(text) = &self else { return self };
        let help = format!(
            "no credentials of this host were used: ask as root, hand some over in \"auth-file\", or see polkit(8) for how to allow {}",
            Action::UseCredentials.id()
        );
        Self::RegistryAuth(format!("{}{HELP}{help}", split_help(text).0))
    }

    /// The same without the names of files that hold or belong to credentials (T-34).
    pub(super) fn for_user(self) -> Self {
        let of_credentials = [Code::AuthFileInvalid, Code::CertificatesInvalid, Code::CredentialHelperFailed];
        let code = of_credentials.into_iter().find(|code| self.code() == Some(code.as_str()));
        match code {
            Some(code) => Self::ConfigurationInvalid(helpful_text(
                code.as_str(),
                "what this host has for the registry cannot be used",
                "root is told which file it is",
            )),
            None => self,
        }
    }

    /// For the journal; nobody is there to receive it.
    pub(super) fn caller_left() -> Self {
        Self::ZBus(zbus::Error::Failure("the caller left the bus".to_owned()))
    }

    pub(super) fn bad_descriptor(what: &str, detail: &str) -> Self {
        let message = format!("{what} cannot be read: {detail}");
        Self::BadFileDescriptor(text(Code::DescriptorInvalid.as_str(), &message))
    }

    pub(super) fn cancelled() -> Self {
        Self::Cancelled(text(Code::Cancelled.as_str(), "the caller cancelled the verification"))
    }

    pub(super) fn internal(message: &str) -> Self {
        Self::Internal(text(Code::InternalError.as_str(), message))
    }

    pub(super) fn invalid_args(message: &str) -> Self {
        Self::InvalidArgs(text(Code::Usage.as_str(), message))
    }

    pub(super) fn local_transport(transport: Transport) -> Self {
        let message = format!(
            "the service does not see the caller's files: use \"vouchd verify --direct\" for {transport} images"
        );
        Self::UnsupportedTransport(text(Code::UnsupportedTransport.as_str(), &message))
    }

    pub(super) fn timed_out() -> Self {
        Self::TimedOut(text(Code::TimedOut.as_str(), "the deadline passed"))
    }

    pub(super) fn too_large(what: &str, limit: usize) -> Self {
        let message = format!("{what} has more than {limit} bytes");
        Self::ManifestTooLarge(text(Code::EvidenceTooLarge.as_str(), &message))
    }

    pub(super) fn too_often() -> Self {
        let message = "a user may make 100 calls at once, and 10 a second";
        Self::TooManyRequests(helpful_text(Code::TooManyRequests.as_str(), message, "ask again later"))
    }

    pub(super) fn unknown_cookie() -> Self {
        Self::UnknownCookie(text(
            Code::UnknownCookie.as_str(),
            "no verification of this caller has the cookie",
        ))
    }

    pub(super) fn moved(reference: &str, wanted: &Digest, found: &Digest) -> Self {
        let message = format!("{reference} leads to {found}, not to {wanted}");
        Self::DigestMismatch(text(Code::DigestMismatch.as_str(), &message))
    }

    pub(super) fn unexpected_digest(expected: &Digest, accepted: Option<&Digest>) -> Self {
        let accepted = accepted.map_or_else(|| "an image without a digest".to_owned(), Digest::to_string);
        let message = format!("the policy accepts {accepted}, not {expected}");
        Self::DigestMismatch(text(Code::DigestMismatch.as_str(), &message))
    }
}

/// Parts the message from the help; line ends within either are escaped.
fn split_help(text: &str) -> (&str, &str) {
    text.split_once(HELP).unwrap_or((text, ""))
}

/// What stands between the message of an error and its help.
const HELP: &str = "\nhelp: ";

/// As [`text`], with what can be done about it, if there is anything.
fn helpful_text(code: &str, message: &str, help: &str) -> String {
    let mut text = text(code, message);
    if !help.is_empty() {
        text.push_str(HELP);
        text.push_str(&escape(help));
    }
    text
}

/// The one string of an error, without anything that could break a message or act on a terminal.
fn text(code: &str, message: &str) -> String {
    format!("[{code}] {}", escape(message))
}

impl From<NoTurn> for Error {
    fn from(NoTurn { most }: NoTurn) -> Self {
        let message = format!("{most} calls of this kind are running already, or the service is ending");
        Self::TooManyRequests(helpful_text(Code::TooManyRequests.as_str(), &message, "ask again later"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_message_come_back_from_the_text() {
        let error = Error::invalid_args("a\0b");
        assert_eq!(error.name().as_str(), "org.freedesktop.DBus.Error.InvalidArgs");
        assert_eq!((error.code(), error.message().as_str()), (Some("usage"), "a\\u{0}b"));
        for foreign in ["", "Signature mismatch", "[usage]", "[] a", "[a b] c", "x [usage] y"] {
            assert_eq!(Error::InvalidArgs(foreign.to_owned()).code(), None, "{foreign}");
        }
    }

    #[test]
    fn denials_are_named_by_their_code() {
        for (code, name) in [
            (Some("signature-required"), "org.vouchd.Verifier1.Error.SignatureRequired"),
            (Some("unsupported"), "org.vouchd.Verifier1.Error.UnsupportedRequirement"),
            (Some("digest-mismatch"), "org.vouchd.Verifier1.Error.Rejected"),
            (Some("unsigned"), "org.vouchd.Verifier1.Error.Rejected"),
            (None, "org.vouchd.Verifier1.Error.Rejected"),
        ] {
            let mut report =
                Report::undecided("docker://a/b:c", crate::report::Route::Bus, "", String::new(), "");
            report.code = code.map(str::to_owned);
            assert_eq!(Error::of_denial(&report).name().as_str(), name);
        }
    }
}
