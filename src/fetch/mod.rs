//! The only input and output: registries, lookaside stores, local images, key files.
//!
//! Every read has a limit, and everything that one verification reads comes out of one [`Budget`].

pub mod attachment;
pub mod credentials;
pub mod keys;
pub mod local;
pub mod lookaside;
pub mod registry;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::config::{self, Directories, LookasideUrl, RegistriesD};
use crate::diagnostic::{Code, escape};
use crate::digest::Digest;
use crate::evaluate::evidence::{
    Evidence, InstanceEvidence, LocatedSignature, ManifestEvidence, Needs, Question, Subject,
};
use crate::manifest::{self, Malformed, NoInstance};
use crate::reference::{ImageReference, Named, Place, Transport};

/// Largest manifest: 4 MiB, as the reference allows (rule H-10).
pub const MANIFEST_BYTES: usize = 4 << 20;

/// Largest signature blob or attachment layer: 4 MiB (rules K-6, A-5).
pub const SIGNATURE_BYTES: usize = crate::verify::SIGNATURE_BYTES;

/// Largest key file: 4 MiB, design decision 6.
pub const KEY_FILE_BYTES: usize = 4 << 20;

/// Most bytes held for one verification: 32 MiB (T-28).
pub const EVIDENCE_BYTES: usize = 32 << 20;

/// Most bytes held for all verifications of one process together: 96 MiB (T-28).
pub const ALL_EVIDENCE_BYTES: usize = 96 << 20;

/// What each verification holds without regard to the others: 256 KiB, so that a few large images never keep ordinary
/// ones out.
const ORDINARY_BYTES: usize = 256 << 10;

/// Most requests for one verification: 300 (T-28).
pub const EVIDENCE_REQUESTS: usize = 300;

/// The one who gathers: connections, tokens and key files that outlive a verification.
#[derive(Debug)]
pub struct Client {
    registry: registry::Client,
    registries_d: Directories,
    keys: Arc<keys::KeyFiles>,
    /// What all verifications together may still hold.
    bytes_left: Arc<AtomicUsize>,
}

impl Client {
    /// A client that has asked nothing yet.
    pub fn new(settings: registry::Settings, registries_d: Directories) -> Self {
        let registry = registry::Client::new(settings);
        let bytes_left = Arc::new(AtomicUsize::new(ALL_EVIDENCE_BYTES));
        Self { registry, registries_d, keys: Arc::new(keys::KeyFiles::new()), bytes_left }
    }

    /// The budget of one verification. Keep it as long as the evidence that it paid for.
    pub fn budget(&self) -> Budget {
        Budget::of(Some(Arc::clone(&self.bytes_left)))
    }

    /// The key files, for what is judged without gathering.
    pub fn keys(&self) -> &Arc<keys::KeyFiles> {
        &self.keys
    }

    /// Gathers what `needs` says, and nothing else.
    pub async fn gather(
        &self,
        image: &ImageReference,
        needs: &Needs,
        question: &Question,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Evidence, Error> {
        let (keys, wanted) = (Arc::clone(&self.keys), needs.clone());
        let mut evidence = blocking(move || {
            let mut evidence = Evidence::default();
            keys.add(&wanted, &mut evidence)?;
            Ok(evidence)
        })
        .await?;
        if !needs.manifest {
            return Ok(evidence);
        }
        let source = match (image.place(), image.docker_reference()) {
            (Place::Registry, Some(named)) => {
                // Rule D-11: what is wrong there is wrong for every image of a registry.
                let directories = self.registries_d.clone();
                let registries_d = blocking(move || Ok(RegistriesD::load(&directories)?)).await?;
                let attachments = registries_d.use_attachments(named);
                evidence.attachments_disabled = !attachments;
                let lookaside = registries_d.lookaside_usable(named)?;
                let client = &self.registry;
                Source::Registry(RegistrySource { client, named, lookaside, attachments, budget, deadline })
            }
            (
                Place::Registry
                | Place::Dir(_)
                | Place::DockerArchive { .. }
                | Place::Elsewhere
                | Place::Layout { .. }
                | Place::OciArchive { .. }
                | Place::Storage { .. },
                _,
            ) => {
                let (wanted, platform) = (image.clone(), question.platform.clone());
                let (budget, deadline) = (budget.clone(), deadline.into_std());
                let local =
                    blocking(move || local::Image::open(&wanted, &platform, &budget, deadline)).await?;
                Source::Local(local.ok_or(Error::UnsupportedTransport(image.transport()))?)
            }
        };
        let signed = async |mut manifest: ManifestEvidence, instance: Option<&Digest>| {
            if needs.signatures {
                manifest.signatures = source.signatures(&manifest, instance).await?;
            }
            Ok::<_, Error>(manifest)
        };
        let top_level = source.manifest(None).await?;
        // What cannot be read for certain is no index; the judgement refuses it.
        let index_type = manifest::index_type(&top_level.bytes, &top_level.media_type);
        let index_type = match index_type {
            Ok(index_type) => index_type.filter(|_| question.subject != Subject::TopLevel),
            Err(Malformed) if manifest::digest(&top_level.bytes).is_err() => None,
            Err(Malformed) => {
                return Err(source.malformed("the manifest is not of the type that the source says"));
            }
        };
        let Some(index_type) = index_type else {
            evidence.top_level = Some(signed(top_level, None).await?);
            return Ok(evidence);
        };
        let wanted =
            manifest::choose_instance(&top_level.bytes, index_type, &question.platform).map_err(|error| {
                match error {
                    NoInstance::Malformed => source.malformed("the image index cannot be read"),
                    NoInstance::NoMatch => {
                        Error::NoMatchingPlatform { wanted: question.platform.to_string() }
                    }
                }
            })?;
        let instance = async {
            let instance = source.manifest(Some(&wanted)).await?;
            // Rule E-34.
            if manifest::index_type(&instance.bytes, &instance.media_type) != Ok(None) {
                return Err(
                    source.malformed("what the image index has for the platform is no image manifest")
                );
            }
            signed(instance, Some(&wanted)).await
        };
        let top_level = async {
            match question.subject {
                Subject::Instance => Ok(top_level),
                Subject::Both | Subject::Either | Subject::TopLevel => signed(top_level, None).await,
            }
        };
        let (top_level, instance) = tokio::try_join!(top_level, instance)?;
        evidence.top_level = Some(top_level);
        evidence.instance = Some(InstanceEvidence { digest: wanted, manifest: instance });
        Ok(evidence)
    }
}

/// Runs what waits for a disk where it holds nobody else up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(Error::Local { path: String::new(), detail: format!("reading failed: {panic}") })
    })
}

/// Where the manifests and signatures of one image come from.
enum Source<'a> {
    Local(local::Image),
    Registry(RegistrySource<'a>),
}

struct RegistrySource<'a> {
    client: &'a registry::Client,
    named: &'a Named,
    lookaside: LookasideUrl,
    attachments: bool,
    budget: &'a Budget,
    deadline: Instant,
}

impl Source<'_> {
    /// The manifest that the name means, or that of an instance.
    async fn manifest(&self, instance: Option<&Digest>) -> Result<ManifestEvidence, Error> {
        let instance = instance.cloned();
        match self {
            Self::Local(image) => {
                let image = image.clone();
                blocking(move || image.manifest(instance.as_ref())).await
            }
            Self::Registry(source) => {
                let digest = instance.as_ref().or(source.named.digest()).map(ToString::to_string);
                source.manifest(digest.as_deref().or(source.named.tag()).unwrap_or("latest")).await
            }
        }
    }

    /// The signatures stored for that manifest.
    async fn signatures(
        &self,
        manifest: &ManifestEvidence,
        instance: Option<&Digest>,
    ) -> Result<Vec<LocatedSignature>, Error> {
        match self {
            Self::Local(image) => {
                let (image, instance) = (image.clone(), instance.cloned());
                blocking(move || image.signatures(instance.as_ref())).await
            }
            // A manifest without a digest has none, and is refused when it is judged.
            Self::Registry(source) => match manifest::digest(&manifest.bytes) {
                Ok(digest) => source.signatures(&digest).await,
                Err(_) => Ok(Vec::new()),
            },
        }
    }

    fn malformed(&self, detail: &str) -> Error {
        let detail = detail.to_owned();
        match self {
            Self::Local(image) => Error::Local { path: image.path().to_owned(), detail },
            Self::Registry(source) => {
                Error::RegistryProtocol { registry: source.named.domain().to_owned(), detail }
            }
        }
    }
}

impl RegistrySource<'_> {
    async fn manifest(&self, reference: &str) -> Result<ManifestEvidence, Error> {
        let document = self.client.manifest(self.named, reference, self.budget, self.deadline).await?;
        Ok(ManifestEvidence {
            bytes: document.bytes,
            media_type: document.media_type,
            signatures: Vec::new(),
        })
    }

    /// The lookaside store and the attachments, asked side by side; a failure of either fails both (rule X-4).
    async fn signatures(&self, digest: &Digest) -> Result<Vec<LocatedSignature>, Error> {
        let (client, named, budget, deadline) = (self.client, self.named, self.budget, self.deadline);
        let attachments = async {
            if self.attachments {
                attachment::signatures(client, named, digest, budget, deadline).await
            } else {
                Ok(Vec::new())
            }
        };
        let lookaside = lookaside::signatures(client, named, &self.lookaside, digest, budget, deadline);
        let (mut signatures, attached) = tokio::try_join!(lookaside, attachments)?;
        signatures.extend(attached);
        Ok(signatures)
    }
}

/// What one verification may still read and ask (T-28). Clones share one account.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    bytes: AtomicUsize,
    requests: AtomicUsize,
    /// What all verifications together may still hold.
    all: Option<Arc<AtomicUsize>>,
    /// What this one took of that, to be given back when it ends.
    taken: AtomicUsize,
}

impl Budget {
    /// A full budget of its own.
    pub fn new() -> Self {
        Self::of(None)
    }

    fn of(all: Option<Arc<AtomicUsize>>) -> Self {
        let (bytes, requests) = (AtomicUsize::new(EVIDENCE_BYTES), AtomicUsize::new(EVIDENCE_REQUESTS));
        Self(Arc::new(Account { bytes, requests, all, taken: AtomicUsize::new(0) }))
    }

    /// Pays for one request.
    pub fn request(&self) -> Result<(), Error> {
        spend(&self.0.requests, 1).map(|_| ()).ok_or(Error::EvidenceTooLarge)
    }

    /// Pays for bytes that will be held; call it as they arrive.
    pub fn bytes(&self, count: usize) -> Result<(), Error> {
        let before = spend(&self.0.bytes, count).ok_or(Error::EvidenceTooLarge)?;
        let Some(all) = &self.0.all else { return Ok(()) };
        let beyond = |left: usize| EVIDENCE_BYTES.saturating_sub(left).saturating_sub(ORDINARY_BYTES);
        let common = beyond(before.saturating_sub(count)).saturating_sub(beyond(before));
        if spend(all, common).is_none() {
            self.0.bytes.fetch_add(count, Ordering::Relaxed);
            return Err(Error::Busy);
        }
        self.0.taken.fetch_add(common, Ordering::Relaxed);
        Ok(())
    }

    /// The number of requests paid for so far.
    pub fn requests_made(&self) -> usize {
        EVIDENCE_REQUESTS.saturating_sub(self.0.requests.load(Ordering::Relaxed))
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(all) = &self.all {
            all.fetch_add(self.taken.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// What was left before, if it was enough.
fn spend(account: &AtomicUsize, count: usize) -> Option<usize> {
    account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).ok()
}

/// Why evidence could not be gathered: nothing has been decided.
///
/// Texts from outside are kept raw and escaped where they are printed; no variant holds credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An authentication file cannot be used.
    AuthFile {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// All verifications together hold as much as they may.
    Busy,
    /// The files of a certificate directory cannot be used.
    Certificates {
        /// The file or directory.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// The configuration cannot be used.
    Config(config::Error),
    /// What arrived is not what its digest says.
    DigestMismatch {
        /// Where it came from.
        location: String,
        /// The digest that was asked for.
        wanted: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// More bytes or requests than one verification may use.
    EvidenceTooLarge,
    /// The registry says that there is no such image.
    ImageNotFound {
        /// The image.
        image: String,
        /// What the registry said.
        detail: String,
    },
    /// A key file cannot be read.
    KeyFile {
        /// The file as the policy names it.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// A local image cannot be read.
    Local {
        /// The file or directory.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// A lookaside store cannot be read.
    Lookaside {
        /// The URL, without credentials.
        location: String,
        /// What is wrong.
        detail: String,
    },
    /// A stored signature is none of any format, which spoils all signatures of the image (rule B-5).
    MalformedSignature {
        /// Path or URL, without credentials.
        location: String,
        /// What is wrong.
        detail: String,
    },
    /// An image index has nothing for the platform.
    NoMatchingPlatform {
        /// The platform.
        wanted: String,
    },
    /// The registry refuses these credentials, or wants some.
    RegistryAuth {
        /// Host and port.
        registry: String,
        /// What the registry said.
        detail: String,
    },
    /// The registry's answer breaks the rules.
    RegistryProtocol {
        /// Host and port.
        registry: String,
        /// Which rule, and how.
        detail: String,
    },
    /// The registry cannot be reached, or failed.
    RegistryUnavailable {
        /// Host and port.
        registry: String,
        /// What happened.
        detail: String,
    },
    /// The server does not prove who it is, or does not speak TLS.
    Tls {
        /// Host and port.
        registry: String,
        /// What is wrong.
        detail: String,
    },
    /// The deadline passed.
    TimedOut {
        /// What was being waited for.
        waiting_for: String,
    },
    /// This version cannot read images of the transport.
    UnsupportedTransport(Transport),
}

impl Error {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        match self {
            Self::AuthFile { .. } => Code::AuthFileInvalid,
            Self::Busy => Code::TooManyRequests,
            Self::Certificates { .. } => Code::CertificatesInvalid,
            Self::Config(error) => error.code(),
            Self::DigestMismatch { .. } => Code::DigestMismatch,
            Self::EvidenceTooLarge => Code::EvidenceTooLarge,
            Self::ImageNotFound { .. } => Code::ImageNotFound,
            Self::KeyFile { .. } => Code::KeyFileUnreadable,
            Self::Local { .. } => Code::LocalImageInvalid,
            Self::Lookaside { .. } => Code::LookasideUnavailable,
            Self::MalformedSignature { .. } => Code::MalformedSignature,
            Self::NoMatchingPlatform { .. } => Code::NoMatchingPlatform,
            Self::RegistryAuth { .. } => Code::RegistryAuth,
            Self::RegistryProtocol { .. } => Code::RegistryProtocol,
            Self::RegistryUnavailable { .. } => Code::RegistryUnavailable,
            Self::TimedOut { .. } => Code::TimedOut,
            Self::Tls { .. } => Code::TlsError,
            Self::UnsupportedTransport(_) => Code::UnsupportedTransport,
        }
    }

    /// What can be done about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::AuthFile { .. } => "correct the file, or name another with --authfile",
            Self::Busy => "try again later",
            Self::Certificates { .. } => "correct the file, or name another directory with --cert-dir",
            Self::Config(error) => error.help(),
            Self::DigestMismatch { .. } => {
                "the server sent other bytes than were asked for; do not use the image from there"
            }
            Self::EvidenceTooLarge => "the image has more signatures than can be checked; ask its publisher",
            Self::ImageNotFound { .. } => "check the name and the tag",
            Self::KeyFile { .. } => "install the key, or correct its path in the policy",
            Self::Local { .. } => "check the path and its permissions",
            Self::Lookaside { .. } => {
                "check the \"lookaside\" URL of this registry in registries.d; an absent signature must answer 404"
            }
            Self::MalformedSignature { .. } => {
                "remove what is stored there, or put the signature back; a server must answer 404 for what it does not have"
            }
            Self::NoMatchingPlatform { .. } => {
                "name a platform that the image has, with --platform OS/ARCH[/VARIANT]"
            }
            Self::RegistryAuth { .. } => {
                "log in with \"podman login\", or name an authentication file with --authfile"
            }
            Self::RegistryProtocol { .. } => "check that the host is a container registry",
            Self::RegistryUnavailable { .. } => "check the network and the registry, and try again",
            Self::Tls { .. } => {
                "put the certificate of the registry's authority into /etc/containers/certs.d/HOST:PORT/ca.crt, or name a directory with --cert-dir; plain HTTP is not supported"
            }
            Self::TimedOut { .. } => "try again, or allow more time with --timeout",
            Self::UnsupportedTransport(_) => "see \"Limitations\" in the README",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthFile { path, detail } => {
                write!(f, "cannot use the authentication file \"{}\": {}", escape(path), escape(detail))
            }
            Self::Busy => f.write_str("other verifications hold all the memory that there is for them"),
            Self::Certificates { path, detail } => {
                write!(f, "cannot use the certificates in \"{}\": {}", escape(path), escape(detail))
            }
            Self::Config(error) => error.fmt(f),
            Self::DigestMismatch { location, wanted, found } => {
                write!(f, "digest mismatch: {} should be {wanted} and is {found}", escape(location))
            }
            Self::EvidenceTooLarge => write!(
                f,
                "the image asks for more than {EVIDENCE_BYTES} bytes or {EVIDENCE_REQUESTS} requests of evidence"
            ),
            Self::ImageNotFound { image, detail } => {
                write!(f, "\"{}\" does not exist: {}", escape(image), escape(detail))
            }
            Self::KeyFile { path, detail } => {
                write!(f, "cannot read key \"{}\": {}", escape(path), escape(detail))
            }
            Self::Local { path, detail } => {
                write!(f, "cannot read the image \"{}\": {}", escape(path), escape(detail))
            }
            Self::Lookaside { location, detail } => {
                write!(f, "cannot read the lookaside store \"{}\": {}", escape(location), escape(detail))
            }
            Self::MalformedSignature { location, detail } => {
                write!(f, "\"{}\" is no signature: {}", escape(location), escape(detail))
            }
            Self::NoMatchingPlatform { wanted } => {
                write!(f, "the image index has nothing for the platform {}", escape(wanted))
            }
            Self::RegistryAuth { registry, detail } => {
                write!(f, "the registry {} refuses access: {}", escape(registry), escape(detail))
            }
            Self::RegistryProtocol { registry, detail } => {
                write!(f, "the answer of {} is not allowed: {}", escape(registry), escape(detail))
            }
            Self::RegistryUnavailable { registry, detail } => {
                write!(f, "the registry {} cannot be used: {}", escape(registry), escape(detail))
            }
            Self::Tls { registry, detail } => {
                write!(f, "no secure connection to {}: {}", escape(registry), escape(detail))
            }
            Self::TimedOut { waiting_for } => {
                write!(f, "the deadline passed while waiting for {}", escape(waiting_for))
            }
            Self::UnsupportedTransport(transport) => {
                write!(f, "images of the transport \"{transport}\" cannot be read yet")
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_have_limits_of_their_own_and_a_common_one() {
        let start = EVIDENCE_BYTES - ORDINARY_BYTES + 10;
        let all = Arc::new(AtomicUsize::new(start));
        let (one, other) = (Budget::of(Some(Arc::clone(&all))), Budget::of(Some(Arc::clone(&all))));
        assert_eq!(one.bytes(EVIDENCE_BYTES), Ok(()));
        assert_eq!(one.clone().bytes(1), Err(Error::EvidenceTooLarge));
        // Ordinary images are never kept out; what is more comes out of the common account.
        assert_eq!(other.bytes(ORDINARY_BYTES), Ok(()));
        assert_eq!(other.bytes(11), Err(Error::Busy));
        assert_eq!(other.bytes(10), Ok(()));
        assert_eq!(all.load(Ordering::Relaxed), 0);
        // What is given back was taken, no more and no less.
        drop(one);
        drop(other);
        assert_eq!(all.load(Ordering::Relaxed), start);
        let budget = Budget::new();
        assert!((0..EVIDENCE_REQUESTS).all(|_| budget.request().is_ok()));
        assert_eq!(
            (budget.request(), budget.requests_made()),
            (Err(Error::EvidenceTooLarge), EVIDENCE_REQUESTS)
        );
    }
}
