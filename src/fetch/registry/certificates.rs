//! [`Files`]: the certificates of a registry as they are on disk, and what they mean.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Proxy;
use reqwest::redirect::Policy;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use crate::config::RegularFile;
use crate::digest::Digest;
use crate::fetch::Error;
use crate::fetch::registry::address::Resolver;
use crate::fetch::registry::server_certificate::{SystemRoots, Unverified, Verifier};
use crate::fetch::registry::trust::Route;
use crate::fetch::registry::{CONNECT_TIMEOUT, Settings, causes};

/// The files of a certificate directory that mean something; containers-certs.d(5). Some hold secrets.
pub(super) struct Files {
    /// None if there is no directory for the registry.
    directory: Option<PathBuf>,
    files: BTreeMap<OsString, Vec<u8>>,
}

impl Files {
    /// Those that count for this registry. It blocks.
    pub(super) fn find(settings: &Settings, registry: &str) -> Result<Self, Error> {
        match &settings.cert_dir {
            Some(directory) => {
                let entries = std::fs::read_dir(directory);
                Self::read(directory, entries.map_err(|e| certificate_error(directory, &e.to_string()))?)
            }
            None => Self::search(&settings.certs_d, registry),
        }
    }

    /// The first directory that exists for this registry counts alone (rule T-1).
    fn search(certs_d: &[PathBuf], registry: &str) -> Result<Self, Error> {
        for base in certs_d {
            let directory = base.join(registry);
            match std::fs::read_dir(&directory) {
                Ok(entries) => return Self::read(&directory, entries),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                Err(e) => return Err(certificate_error(&directory, &e.to_string())),
            }
        }
        Ok(Self { directory: None, files: BTreeMap::new() })
    }

    /// A file that is gone when it is opened, or leads nowhere, is passed over as the reference does.
    fn read(directory: &Path, entries: std::fs::ReadDir) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|e| certificate_error(directory, &e.to_string()))?.path();
            let unreadable = |e: io::Error| certificate_error(&path, &e.to_string());
            if let Some(name) = path.file_name()
                && matches!(extension(name), Some("crt" | "cert" | "key"))
                && let Some(file) = RegularFile::find(&path).map_err(unreadable)?
            {
                files.insert(name.to_owned(), file.read(CERTIFICATE_BYTES).map_err(unreadable)?);
            }
        }
        Ok(Self { directory: Some(directory.to_owned()), files })
    }

    /// Tells apart whatever differs in names or contents, however fast it changed (T-23).
    pub(super) fn digest(&self) -> Digest {
        let mut framed = Vec::new();
        for part in self.files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes]) {
            framed.extend(format!("{}:", part.len()).into_bytes());
            framed.extend(part);
        }
        Digest::sha256(&framed)
    }
}

/// What a certificate directory adds to the system's roots; containers-certs.d(5), rule T-2.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The directory, for messages.
    source: PathBuf,
    roots: Vec<CertificateDer<'static>>,
    system: SystemRoots,
    client: Option<KeyPair>,
}

impl Certificates {
    pub(super) fn new(files: &Files, system: SystemRoots) -> Result<Self, Error> {
        let source = files.directory.clone().unwrap_or_else(|| "the certificates of the system".into());
        let mut found = Self { source, roots: Vec::new(), system, client: None };
        for (name, bytes) in &files.files {
            match extension(name) {
                Some("crt") => found.roots.extend(roots(bytes)),
                Some("cert") => {
                    let key = files.files.get(&with_extension(name, "key"));
                    let key = key.ok_or_else(|| found.lacks("key", name))?;
                    if found.client.replace(key_pair(&found.source.join(name), bytes, key)?).is_some() {
                        return Err(found.error("more than one client certificate is not supported"));
                    }
                }
                Some("key") if !files.files.contains_key(&with_extension(name, "cert")) => {
                    return Err(found.lacks("certificate", name));
                }
                Some(_) | None => {}
            }
        }
        Ok(found)
    }

    fn lacks(&self, half: &str, name: &OsStr) -> Error {
        let name = name.display();
        self.error(&format!(
            "the {half} of \"{name}\" is missing; certificates of authorities are named *.crt"
        ))
    }

    fn error(&self, detail: &str) -> Error {
        certificate_error(&self.source, detail)
    }

    /// Connections of one registry.
    ///
    /// It reads the system's roots: it blocks.
    pub(super) fn connect(&self, route: Route) -> Result<reqwest::Client, Error> {
        let tls = self.tls(&route)?;
        let Route { reach, proxies, .. } = route;
        let resolver = Resolver { reach, proxies: proxies.clone() };
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .referer(false)
            // It stands for the proxies of the environment as well.
            .no_proxy()
            .proxy(Proxy::custom(move |url| proxies.of(url).cloned()))
            // Features of reqwest that another crate may switch on: limits are for the bytes as sent.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(resolver));
        let failed = |e| self.error(&causes(&e).last().map(ToString::to_string).unwrap_or_default());
        builder.build().map_err(failed)
    }

    /// TLS 1.2 or later.
    fn tls(&self, route: &Route) -> Result<ClientConfig, Error> {
        let Route { unverified, client_certificate, proxies, .. } = route;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = || {
            let roots = self.roots.iter().cloned();
            Verifier::new(roots, self.system, Arc::clone(&provider)).map_err(|detail| self.error(&detail))
        };
        let verifier: Arc<dyn ServerCertVerifier> = if *unverified {
            let of_proxies = proxies.are_over_tls().then(verifier).transpose()?;
            let proxies = of_proxies.map(|verifier| (proxies.clone(), verifier));
            Arc::new(Unverified { provider: Arc::clone(&provider), proxies })
        } else {
            Arc::new(verifier()?)
        };
        let failed = |error: rustls::Error| self.error(&error.to_string());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.client.as_ref().filter(|_| *client_certificate) {
            Some(client) => {
                builder.with_client_auth_cert(client.chain.clone(), client.key.clone_key()).map_err(failed)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Ok(config)
    }
}

/// The certificates of a PEM file that can be roots; anything else is ignored (rule T-2).
fn roots(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    certificates.filter(|der| RootCertStore::empty().add(der.clone()).is_ok()).collect()
}

/// A client certificate with those above it, and its key.
#[derive(Debug)]
struct KeyPair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn key_pair(path: &Path, certificate: &[u8], key: &[u8]) -> Result<KeyPair, Error> {
    let unusable = || certificate_error(path, "with its .key it is no key pair");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(unusable)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| unusable())?;
    let provider = aws_lc_rs::default_provider();
    // It fails if the key is not that of the certificate.
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(|_| unusable())?;
    Ok(KeyPair { chain, key })
}

fn extension(name: &OsStr) -> Option<&str> {
    Path::new(name).extension()?.to_str()
}

fn with_extension(name: &OsStr, extension: &str) -> OsString {
    Path::new(name).with_extension(extension).into_os_string()
}

fn certificate_error(path: &Path, detail: &str) -> Error {
    Error::Certificates { path: path.display().to_string(), detail: detail.to_owned() }
}

const USER_AGENT: &str = concat!("vouchd/", env!("CARGO_PKG_VERSION"));

/// As for all configuration files, design decision 6.
const CERTIFICATE_BYTES: usize = 4 << 20;

/// RFC 7301: HTTP/2 where the server has it.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// As many as attachment layers are fetched at a time.
const IDLE_CONNECTIONS: usize = 4;
