//! [`Certificates`]: the roots and the client certificate of a registry, and connections that use them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::redirect::Policy;
use reqwest::tls;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::RegularFile;
use crate::fetch::Error;
use crate::fetch::registry::address::Reach;
use crate::fetch::registry::{CONNECT_TIMEOUT, causes};

/// What a certificate directory adds to the system's roots; containers-certs.d(5), rule T-2.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates {
    /// The directory, for messages.
    source: Option<PathBuf>,
    roots: Vec<reqwest::Certificate>,
    client: Option<reqwest::Identity>,
}

impl Certificates {
    /// The first directory that exists for this registry counts alone (rule T-1).
    pub(super) fn search(registry: &str) -> Result<Self, Error> {
        for base in CERTS_D {
            let dir = Path::new(base).join(registry);
            match std::fs::read_dir(&dir) {
                Ok(_) => return Self::read(&dir),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                Err(e) => return Err(certificate_error(&dir, &e.to_string())),
            }
        }
        Ok(Self::default())
    }

    pub(super) fn read(dir: &Path) -> Result<Self, Error> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| certificate_error(dir, &e.to_string()))? {
            paths.push(entry.map_err(|e| certificate_error(dir, &e.to_string()))?.path());
        }
        paths.sort();
        let mut found = Self { source: Some(dir.to_owned()), ..Self::default() };
        for path in &paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.roots.extend(roots(&read_certificate(path)?)),
                Some("cert") => {
                    let mut pair = read_certificate(path)?;
                    pair.push(b'\n');
                    pair.extend(read_certificate(&path.with_extension("key"))?);
                    let identity = reqwest::Identity::from_pem(&pair);
                    let identity =
                        identity.map_err(|_| certificate_error(path, "with its .key it is no key pair"))?;
                    if found.client.replace(identity).is_some() {
                        return Err(certificate_error(
                            dir,
                            "more than one client certificate is not supported",
                        ));
                    }
                }
                Some("key") if !paths.contains(&path.with_extension("cert")) => {
                    return Err(certificate_error(path, "the .cert of the same name is missing"));
                }
                Some(_) | None => {}
            }
        }
        Ok(found)
    }

    /// Connections of one registry. The client certificate is a credential: only the configured server sees it.
    pub(super) fn connect(&self, reach: Reach) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            // Features of reqwest that another crate may switch on: limits are for the bytes as sent.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tls_version_min(tls::Version::TLS_1_2)
            .tls_certs_merge(self.roots.iter().cloned())
            .dns_resolver(Arc::new(reach));
        if let (Reach::Configured, Some(client)) = (reach, &self.client) {
            builder = builder.identity(client.clone());
        }
        let source = self.source.as_deref().unwrap_or(Path::new("the certificates of the system"));
        builder.build().map_err(|e| {
            certificate_error(source, &causes(&e).last().map(ToString::to_string).unwrap_or_default())
        })
    }
}

/// The certificates of a PEM file that can be roots; anything else is ignored (rule T-2).
fn roots(pem: &[u8]) -> Vec<reqwest::Certificate> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let usable = certificates.filter(|der| RootCertStore::empty().add(der.clone()).is_ok());
    usable.filter_map(|der| reqwest::Certificate::from_der(&der).ok()).collect()
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = RegularFile::open(path).and_then(|file| file.read(CERTIFICATE_BYTES));
    bytes.map_err(|e| certificate_error(path, &e.to_string()))
}

fn certificate_error(path: &Path, detail: &str) -> Error {
    Error::Certificates { path: path.display().to_string(), detail: detail.to_owned() }
}

const USER_AGENT: &str = concat!("vouchd/", env!("CARGO_PKG_VERSION"));

/// Classic directories of rule T-1.
const CERTS_D: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// As for all configuration files, design decision 6.
const CERTIFICATE_BYTES: usize = 4 << 20;

/// As many as attachment layers are fetched at a time.
const IDLE_CONNECTIONS: usize = 4;
