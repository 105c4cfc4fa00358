//! [`Files`]: the certificates of a registry as they are on disk, and what they mean.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::redirect::Policy;
use reqwest::tls;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::RegularFile;
use crate::digest::Digest;
use crate::fetch::Error;
use crate::fetch::registry::address::Reach;
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
    roots: Vec<reqwest::Certificate>,
    client: Option<reqwest::Identity>,
}

impl Certificates {
    pub(super) fn new(files: &Files) -> Result<Self, Error> {
        let source = files.directory.clone().unwrap_or_else(|| "the certificates of the system".into());
        let mut found = Self { source, roots: Vec::new(), client: None };
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
        let failed = |e| self.error(&causes(&e).last().map(ToString::to_string).unwrap_or_default());
        builder.build().map_err(failed)
    }
}

/// The certificates of a PEM file that can be roots; anything else is ignored (rule T-2).
fn roots(pem: &[u8]) -> Vec<reqwest::Certificate> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let usable = certificates.filter(|der| RootCertStore::empty().add(der.clone()).is_ok());
    usable.filter_map(|der| reqwest::Certificate::from_der(&der).ok()).collect()
}

fn key_pair(path: &Path, certificate: &[u8], key: &[u8]) -> Result<reqwest::Identity, Error> {
    let identity = reqwest::Identity::from_pem(&[certificate, b"\n", key].concat());
    identity.map_err(|_| certificate_error(path, "with its .key it is no key pair"))
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

/// As many as attachment layers are fetched at a time.
const IDLE_CONNECTIONS: usize = 4;
