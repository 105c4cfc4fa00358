//! Certificates by an authority of one's own, judged now (rules C-40 to C-42).

use super::certificate::Certificate;
use super::fulcio::{intermediates, leaf};
use super::identity::Part;
use super::names::Names;
use super::{Rejection, Timestamp, path};

/// The names that a certificate must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// An e-mail address, byte for byte.
    Email(&'a str),
    /// A host name or address, as in TLS.
    Hostname(&'a str),
    /// Both.
    Both {
        /// The e-mail address.
        email: &'a str,
        /// The host.
        hostname: &'a str,
    },
}

impl Subject<'_> {
    /// Whether the certificate's names include what is wanted (rule C-42).
    fn is_among(self, names: &Names) -> bool {
        match self {
            Self::Email(email) => names.include_email(email),
            Self::Hostname(hostname) => names.include_host(hostname),
            Self::Both { email, hostname } => names.include_email(email) && names.include_host(hostname),
        }
    }

    /// The names in words.
    pub(in crate::verify) fn words(self) -> String {
        match self {
            Self::Email(name) | Self::Hostname(name) => name.to_owned(),
            Self::Both { email, hostname } => format!("{email} and {hostname}"),
        }
    }
}

/// The certificate of a signature, which must be valid now.
pub(in crate::verify) fn verify(
    annotation: &str,
    chain: Option<&String>,
    authorities: &[Certificate],
    configured: &[Certificate],
    subject: Subject<'_>,
    now: Timestamp,
) -> Result<Certificate, Rejection> {
    let attached = intermediates(chain)?;
    let certificate = leaf(annotation)?;
    let others: Vec<&Certificate> = configured.iter().chain(&attached).collect();
    path::check(&certificate, authorities, &others, &[], now)?;
    let names = certificate.extensions.names.as_ref();
    if !names.is_some_and(|names| subject.is_among(names)) {
        let list = names.map(Names::list).filter(|list| !list.is_empty());
        return Err(Rejection::SignerMismatch {
            part: Part::Subject,
            found: list.unwrap_or_else(|| "nobody by name".to_owned()),
            wanted: subject.words(),
        });
    }
    Ok(certificate)
}
