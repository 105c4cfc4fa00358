//! [`Verifier`]: whether a server is the one that its name says, as the reference's TLS library decides.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_KP_SERVER_AUTH};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::time::Validity;
use x509_cert::{Certificate, Version};

use crate::digest::Digest;
use crate::fetch::registry::Proxies;

/// Trusts the roots of the system and those of the registry, and a server whose own certificate is one of them.
///
/// The second is what `openssl req -x509` makes, and what the reference accepts (rule T-2): its library takes a leaf
/// that stands among the roots for a complete chain. Path building itself is webpki's.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    authorities: Vec<Authority>,
    /// SHA-256 of every root.
    roots: HashSet<Digest>,
}

impl Verifier {
    /// Reads the system's roots: it blocks. Nothing is trusted if there are none at all.
    pub(super) fn new(
        extra: impl IntoIterator<Item = CertificateDer<'static>>,
        system: SystemRoots,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let system = system.load();
        let roots: Vec<CertificateDer<'static>> = extra.into_iter().chain(system).collect();
        if roots.is_empty() {
            return Err("there is no certificate of an authority".to_owned());
        }
        let authorities = roots.iter().filter_map(Authority::new).collect();
        let roots = roots.iter().map(|root| Digest::sha256(root)).collect();
        Ok(Self { provider, authorities, roots })
    }
}

/// Where the certificates of the system's authorities are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRoots {
    /// Where `SSL_CERT_FILE` and `SSL_CERT_DIR` say, as Go's crypto/x509 does, else in the usual places.
    Environment,
    /// In the usual places, whatever the environment says (T-22).
    System,
}

impl SystemRoots {
    fn load(self) -> Vec<CertificateDer<'static>> {
        match self {
            Self::Environment => rustls_native_certs::load_native_certs().certs,
            Self::System => {
                let file = BUNDLES.iter().map(Path::new).find(|path| path.exists());
                let directory = file.is_none().then_some(Path::new(HASHED));
                rustls_native_certs::load_certs_from_paths(file, directory).certs
            }
        }
    }
}

/// Go's crypto/x509, `certFiles` for Linux: Debian, Fedora, openSUSE, Alpine.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where the certificates stand one by one.
const HASHED: &str = "/etc/ssl/certs";

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let server = ParsedCertificate::try_from(end_entity)?;
        if self.roots.contains(&Digest::sha256(end_entity)) {
            check_root(end_entity, now)?;
        } else {
            let present = self.authorities.iter().filter(|root| check_time(&root.validity, now).is_ok());
            let store = RootCertStore { roots: present.map(|root| root.anchor.clone()).collect() };
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&server, &store, intermediates, now, algorithms)?;
        }
        verify_server_name(&server, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A root that may vouch for servers, with what webpki does not look at in a root.
#[derive(Debug)]
struct Authority {
    anchor: TrustAnchor<'static>,
    validity: Validity,
}

impl Authority {
    /// None if it is the certificate of no authority, or of one for something else.
    ///
    /// Go's crypto/x509, `Certificate.CheckSignatureFrom`, and the uses of the whole chain in `Certificate.Verify`.
    fn new(der: &CertificateDer<'static>) -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add(der.clone()).ok()?;
        let anchor = store.roots.pop()?;
        let certificate = Certificate::from_der(der).ok()?;
        let tbs = &certificate.tbs_certificate;
        let may_issue = match tbs.get::<BasicConstraints>().ok()? {
            Some((_, constraints)) => constraints.ca,
            None => tbs.version != Version::V3,
        };
        let may_sign = tbs.get::<KeyUsage>().ok()?.is_none_or(|(_, usage)| usage.key_cert_sign());
        check_use(&certificate).ok().filter(|()| may_issue && may_sign)?;
        Some(Self { anchor, validity: tbs.validity })
    }
}

/// A trusted certificate that is the server's own: its time and its use must still fit.
///
/// Go's crypto/x509, `Certificate.Verify`, for a leaf in the pool of roots.
fn check_root(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
    check_time(&parsed.tbs_certificate.validity, now)?;
    check_use(&parsed)
}

/// RFC 5280, section 4.1.2.5.
fn check_time(validity: &Validity, now: UnixTime) -> Result<(), Error> {
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if validity.not_after.to_unix_duration().as_secs() < now {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// RFC 5280, section 4.2.1.12: a certificate that names its uses must name that of servers.
fn check_use(certificate: &Certificate) -> Result<(), Error> {
    let uses =
        certificate.tbs_certificate.get::<ExtendedKeyUsage>().map_err(|_| CertificateError::BadEncoding)?;
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
/// That the server holds the key of the certificate that it shows is still checked, and proxies, which are shown
/// passwords, prove who they are.
#[derive(Debug)]
pub(super) struct Unverified {
    pub(super) provider: Arc<CryptoProvider>,
    /// The proxies that are reached over TLS, and who decides about them.
    pub(super) proxies: Option<(Proxies, Verifier)>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.proxies {
            Some((proxies, verifier)) if proxies.are_at(&server_name.to_str()) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
