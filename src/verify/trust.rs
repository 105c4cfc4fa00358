//! [`KeyMaterial`]: the bytes of one key file or key member, parsed at most once per kind of use.

use std::sync::OnceLock;

use super::Timestamp;
use super::certificate::{self, Certificate};
use super::key::{KeyError, PublicKey};
use super::openpgp::Certificates;
use super::pem;
use super::trusted_root::{TrustedRoot, TrustedRootError};

/// The bytes that a policy gives as keys, from a file or from the policy itself.
#[derive(Debug)]
pub struct KeyMaterial {
    /// The file, or the member of the policy, for messages.
    source: String,
    bytes: Vec<u8>,
    /// When the file was last written, if it is one.
    written: Option<Timestamp>,
    certificates: OnceLock<Certificates>,
    public_key: OnceLock<Result<PublicKey, KeyError>>,
    authorities: OnceLock<Result<Vec<Certificate>, certificate::Error>>,
    intermediates: OnceLock<Result<Vec<Certificate>, certificate::Error>>,
    trusted_root: OnceLock<Result<TrustedRoot, TrustedRootError>>,
}

/// What is to be known of a certificate before there is a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it ends.
    pub not_after: Timestamp,
    /// Whether it may issue certificates at all (rule C-33).
    pub is_authority: bool,
}

impl Life {
    fn of(certificate: &Certificate) -> Self {
        Self { not_after: certificate.not_after, is_authority: certificate.may_sign_certificates() }
    }
}

impl KeyMaterial {
    /// Keeps `bytes`; whether they hold a key is found when one is needed (rule P-13).
    pub fn new(source: String, bytes: Vec<u8>) -> Self {
        Self {
            source,
            bytes,
            written: None,
            certificates: OnceLock::new(),
            public_key: OnceLock::new(),
            authorities: OnceLock::new(),
            intermediates: OnceLock::new(),
            trusted_root: OnceLock::new(),
        }
    }

    /// The same, from a file that was last written then.
    pub fn written_at(self, time: Timestamp) -> Self {
        Self { written: Some(time), ..self }
    }

    /// When the file was last written, if it is one.
    pub fn written(&self) -> Option<Timestamp> {
        self.written
    }

    /// Keys that stand in the policy itself.
    pub fn of_policy(bytes: &[u8]) -> Self {
        Self::new("the key or certificate in the policy".to_owned(), bytes.to_vec())
    }

    /// Where the bytes are from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The OpenPGP certificates in it, possibly none (rule G-8).
    pub fn certificates(&self) -> &Certificates {
        self.certificates.get_or_init(|| Certificates::parse(&self.bytes))
    }

    /// The public key in it (rule C-3).
    pub fn public_key(&self) -> Result<&PublicKey, KeyError> {
        self.public_key.get_or_init(|| PublicKey::from_pem(&self.bytes)).as_ref().map_err(|e| *e)
    }

    /// The Sigstore trusted root in it.
    pub fn trusted_root(&self) -> Result<&TrustedRoot, &TrustedRootError> {
        self.trusted_root.get_or_init(|| TrustedRoot::parse(&self.bytes)).as_ref()
    }

    /// The labels of its PEM blocks, such as `PUBLIC KEY`, in order. Escape before printing.
    pub fn labels(&self) -> Vec<String> {
        pem::blocks(&self.bytes).map(|block| String::from_utf8_lossy(block.label).into_owned()).collect()
    }

    /// How long each of the authorities in it is valid, or why there is none (rules C-30, C-33).
    pub fn authority_lives(&self) -> Result<Vec<Life>, &'static str> {
        self.authorities().map(|all| all.iter().map(Life::of).collect()).map_err(certificate::Error::detail)
    }

    /// As [`KeyMaterial::authority_lives`] for certificates that are no authorities by themselves (rule C-40).
    pub fn intermediate_lives(&self) -> Result<Vec<Life>, &'static str> {
        self.intermediates().map(|all| all.iter().map(Life::of).collect()).map_err(certificate::Error::detail)
    }

    /// The public key of a transparency log in it (rule C-3).
    pub fn log_key(&self) -> Result<&PublicKey, KeyError> {
        self.public_key().and_then(|key| if key.is_ecdsa() { Ok(key) } else { Err(KeyError::NotEcdsa) })
    }

    /// The authorities in it (rule C-30).
    pub(in crate::verify) fn authorities(&self) -> Result<&[Certificate], certificate::Error> {
        let all = self.authorities.get_or_init(|| certificate::authorities(&self.bytes));
        all.as_deref().map_err(|e| *e)
    }

    /// The certificates in it that are no authorities by themselves (rule C-40).
    pub(in crate::verify) fn intermediates(&self) -> Result<&[Certificate], certificate::Error> {
        let all = self.intermediates.get_or_init(|| certificate::all(&self.bytes, certificate::BUNDLE));
        all.as_deref().map_err(|e| *e)
    }
}
