//! [`Verifier`]: whether a server is the one that its name says, as the reference's TLS library decides.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_KP_SERVER_AUTH};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use crate::digest::Digest;

/// Trusts the roots of the system and those of the registry, and a server whose own certificate is one of them.
///
/// The second is what `openssl req -x509` makes, and what the reference accepts (rule T-2): its library takes a leaf
/// that stands among the roots for a complete chain. Path building itself is webpki's.
#[derive(Debug)]
pub(super) struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    /// SHA-256 of every root.
    roots: HashSet<Digest>,
}

impl Verifier {
    /// Reads the system's roots: it blocks. Nothing is trusted if there are none at all.
    pub(super) fn new(
        extra: impl IntoIterator<Item = CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let system = rustls_native_certs::load_native_certs().certs;
        let mut store = RootCertStore::empty();
        let mut roots = HashSet::new();
        for root in extra.into_iter().chain(system) {
            if store.add(root.clone()).is_ok() {
                roots.insert(Digest::sha256(&root));
            }
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
        Ok(Self { inner: inner.map_err(|error| error.to_string())?, roots })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.roots.contains(&Digest::sha256(end_entity)) {
            return check_root(end_entity, server_name, now).map(|()| ServerCertVerified::assertion());
        }
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// A trusted certificate that is the server's own: its name, its time and its use must still fit.
///
/// Go's crypto/x509, `Certificate.Verify`, for a leaf in the pool of roots.
fn check_root(der: &CertificateDer<'_>, server_name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    verify_server_name(&ParsedCertificate::try_from(der)?, server_name)?;
    let parsed = Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if validity.not_after.to_unix_duration().as_secs() < now {
        return Err(CertificateError::Expired.into());
    }
    let uses = parsed.tbs_certificate.get::<ExtendedKeyUsage>().map_err(|_| CertificateError::BadEncoding)?;
    match uses {
        Some((_, uses))
            if !uses.0.iter().any(|u| [ID_KP_SERVER_AUTH, ANY_EXTENDED_KEY_USAGE].contains(u)) =>
        {
            Err(CertificateError::InvalidPurpose.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Believes every server, for registries that the administrator calls insecure (rule M-9).
///
/// That the server holds the key of the certificate that it shows is still checked.
#[derive(Debug)]
pub(super) struct Unverified(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
