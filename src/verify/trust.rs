//! [`KeyMaterial`]: the bytes of one key file or key member, parsed at most once per kind of use.

use std::sync::OnceLock;

use super::Timestamp;
use super::certificate::{self, Certificate};
use super::key::{KeyError, PublicKey};
use super::openpgp::Certificates;
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

    /// The public key of a transparency log in it (rule C-3).
    pub(in crate::verify) fn log_key(&self) -> Result<&PublicKey, KeyError> {
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
