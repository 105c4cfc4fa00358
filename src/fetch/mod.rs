//! The only input and output: registries, lookaside stores, local images, key files.
//!
//! Every read has a limit, and everything that one verification reads comes out of one [`Budget`].

pub mod attachment;
pub mod credentials;
pub mod extension;
pub mod keys;
pub mod local;
pub mod lookaside;
pub mod referrers;
pub mod registry;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::config::{
    self, Directories, Endpoint, Environment, LookasideUrl, ProxySettings, RegistriesConf,
    RegistriesConfSource, RegistriesD, VouchdToml,
};
use crate::diagnostic::{Code, escape};
use crate::digest::{Algorithm, Digest};
use crate::evaluate::evidence::{
    Evidence, InstanceEvidence, LocatedSignature, ManifestEvidence, Needs, Question, Subject,
};
use crate::fetch::registry::{Errand, Proxies};
use crate::manifest::{self, Malformed, NoInstance};
use crate::reference::{ImageReference, Named, Transport};

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

/// Which files say where images and their signatures are, and how to get there.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Which registries.d.
    pub registries_d: Directories,
    /// Which registries.conf.
    pub registries_conf: RegistriesConfSource,
    /// Where proxies are set.
    pub proxies: ProxySource,
}

/// Where proxies are set.
#[derive(Clone, Debug)]
pub enum ProxySource {
    /// In variables of the environment (rule H-8).
    Variables(ProxySettings),
    /// In vouchd.toml.
    VouchdToml(Environment),
}

impl ProxySource {
    fn load(&self) -> Result<Proxies, Error> {
        let (origin, ProxySettings { http, https, no_proxy }) = match self {
            Self::Variables(settings) => ("the environment", settings.clone()),
            Self::VouchdToml(environment) => ("vouchd.toml", VouchdToml::load(environment)?.proxy),
        };
        Proxies::new(http.as_deref(), https.as_deref(), no_proxy.as_deref().unwrap_or_default())
            .map_err(|unusable| Error::Proxy { origin, detail: unusable.to_string() })
    }
}

impl Configuration {
    /// Reads them. What is wrong there is wrong for every image of a registry (rules D-11, M-1). It blocks.
    pub fn load(&self) -> Result<Locations, Error> {
        Ok(Locations {
            registries_d: RegistriesD::load(&self.registries_d)?,
            registries_conf: RegistriesConf::load(&self.registries_conf)?,
            proxies: Arc::new(self.proxies.load()?),
        })
    }
}

/// What those files say at the moment.
#[derive(Clone, Debug)]
pub struct Locations {
    /// Where signatures are.
    pub registries_d: RegistriesD,
    /// Where registries are.
    pub registries_conf: RegistriesConf,
    proxies: Arc<Proxies>,
}

impl Locations {
    /// Whether manifests and signatures of both names are looked for in the same places.
    pub fn are_the_same(&self, image: &Named, other: &Named) -> bool {
        let places = |named: &Named| {
            let endpoints = self.registries_conf.endpoints(named).ok()?;
            let place = |endpoint: &Endpoint| {
                let named = &endpoint.image;
                let lookaside = self.registries_d.lookaside_usable(named).ok();
                (named.name(), endpoint.insecure, self.registries_d.use_attachments(named), lookaside)
            };
            Some(endpoints.iter().map(place).collect::<Vec<_>>())
        };
        places(image).is_some_and(|found| places(other).is_some_and(|other| found == other))
    }
}

/// What was gathered, and what to know about it.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// The evidence.
    pub evidence: Evidence,
    /// Where the image really came from, if that is a registry: perhaps a mirror (rule M-7).
    pub source: Option<Named>,
    /// Things to know that change nothing. Untrusted: escape before printing.
    pub warnings: Vec<String>,
}

/// The one who gathers: connections, tokens and key files that outlive a verification.
#[derive(Debug)]
pub struct Client {
    registry: registry::Client,
    configuration: Arc<Configuration>,
    keys: Arc<keys::KeyFiles>,
    /// What all verifications together may still hold.
    bytes_left: Arc<AtomicUsize>,
}

impl Client {
    /// A client that has asked nothing yet.
    pub fn new(settings: registry::Settings, configuration: Configuration) -> Self {
        let registry = registry::Client::new(settings);
        let bytes_left = Arc::new(AtomicUsize::new(ALL_EVIDENCE_BYTES));
        let (configuration, keys) = (Arc::new(configuration), Arc::new(keys::KeyFiles::new()));
        Self { registry, configuration, keys, bytes_left }
    }

    /// The configuration as it is on disk now. It blocks.
    pub fn locations(&self) -> Result<Locations, Error> {
        self.configuration.load()
    }

    /// The budget of one verification. Keep it as long as the evidence that it paid for.
    pub fn budget(&self) -> Budget {
        Budget::of(Some(Arc::clone(&self.bytes_left)))
    }

    /// The key files, for what is judged without gathering.
    pub fn keys(&self) -> &Arc<keys::KeyFiles> {
        &self.keys
    }

    /// Gathers what `needs` says, and nothing else. Where the caller supplied credentials, no others are shown (T-25).
    pub async fn gather(
        &self,
        image: &ImageReference,
        needs: &Needs,
        question: &Question,
        supplied: Option<&credentials::Source>,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Gathered, Error> {
        let (keys, wanted) = (Arc::clone(&self.keys), needs.clone());
        let mut evidence = blocking(move || {
            let mut evidence = Evidence::default();
            keys.add(&wanted, &mut evidence)?;
            Ok(evidence)
        })
        .await?;
        if !needs.manifest {
            return Ok(Gathered { evidence, ..Gathered::default() });
        }
        let found = match image.in_registry() {
            Some(named) => {
                let limits = (budget, deadline);
                self.reach(named, needs, question, supplied, limits).await?
            }
            None => {
                let (wanted, platform) = (image.clone(), question.platform.clone());
                let (budget, deadline) = (budget.clone(), deadline.into_std());
                let local =
                    blocking(move || local::Image::open(&wanted, &platform, &budget, deadline)).await?;
                let local = local.ok_or(Error::UnsupportedTransport(image.transport()))?;
                Found::of(Source::Local(local)).await?
            }
        };
        let Found { source, top_level, signatures } = found;
        let (origin, warnings) = match &source {
            Source::Registry(registry) => {
                evidence.attachments_disabled = !registry.attachments;
                (Some(registry.endpoint.image.clone()), registry.credentials.warnings.clone())
            }
            Source::Local(_) => (None, Vec::new()),
        };
        let signed = async |mut manifest: ManifestEvidence, instance: Option<&Digest>| {
            if needs.signatures {
                manifest.signatures = source.signatures(&manifest, instance).await?;
            }
            Ok::<_, Error>(manifest)
        };
        let signed_top_level = async |mut top_level: ManifestEvidence| match signatures {
            Some(signatures) => {
                top_level.signatures = signatures?;
                Ok(top_level)
            }
            None => signed(top_level, None).await,
        };
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
            evidence.top_level = Some(signed_top_level(top_level).await?);
            return Ok(Gathered { evidence, source: origin, warnings });
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
                Subject::Both | Subject::Either | Subject::TopLevel => signed_top_level(top_level).await,
            }
        };
        let (top_level, instance) = tokio::try_join!(top_level, instance)?;
        evidence.top_level = Some(top_level);
        evidence.instance = Some(InstanceEvidence { digest: wanted, manifest: instance });
        Ok(Gathered { evidence, source: origin, warnings })
    }

    /// The first endpoint that has the manifest; everything else is asked of that one alone (rules M-5, M-6).
    async fn reach<'a>(
        &'a self,
        named: &Named,
        needs: &Needs,
        question: &Question,
        supplied: Option<&credentials::Source>,
        (budget, deadline): (&'a Budget, Instant),
    ) -> Result<Found<'a>, Error> {
        let configuration = Arc::clone(&self.configuration);
        let locations = blocking(move || configuration.load()).await?;
        let endpoints: Vec<Endpoint> = locations.registries_conf.endpoints(named)?.iter().cloned().collect();
        let early = endpoints.len() == 1 && needs.signatures && question.subject != Subject::Instance;
        let mut mirrors = Vec::new();
        for (endpoint, left) in endpoints.iter().zip((0..endpoints.len()).rev()) {
            let is_last = left == 0;
            // A mirror that says nothing leaves time for those after it.
            let until = if is_last { deadline } else { halfway(deadline) };
            let attempt = async {
                let mut source = self.source(endpoint, &locations, budget, deadline)?;
                let stores = credentials::Stores {
                    names: locations.registries_conf.credential_helpers(),
                    named_in: locations.registries_conf.credential_helpers_file(),
                };
                source.credentials = self.registry.credentials(&source.errand(), supplied, stores).await?;
                source.ask(needs.signatures, early).await
            };
            let outcome = tokio::time::timeout_at(until, attempt).await.unwrap_or_else(|_| {
                Err(Error::TimedOut { waiting_for: format!("the manifest of {}", endpoint.image) })
            });
            match outcome {
                Ok(found) => return Ok(found),
                Err(error) if !is_last && error.is_of_endpoint() => {
                    mirrors.push((endpoint.image.to_string(), error));
                }
                Err(error) if mirrors.is_empty() => return Err(error),
                Err(error) => return Err(Error::Endpoints { last: Box::new(error), mirrors }),
            }
        }
        Err(Error::UnsupportedTransport(Transport::Docker))
    }

    /// Everything but identity is that of the physical name (rules D-10, M-7).
    fn source<'a>(
        &'a self,
        endpoint: &Endpoint,
        locations: &Locations,
        budget: &'a Budget,
        deadline: Instant,
    ) -> Result<RegistrySource<'a>, Error> {
        if let Some(entry) = endpoint.blocked.clone() {
            let image = Box::new(endpoint.image.clone());
            return Err(config::Error::RegistryBlocked { image, entry }.into());
        }
        let (client, proxies) = (&self.registry, Arc::clone(&locations.proxies));
        let (endpoint, registries_d) = (endpoint.clone(), &locations.registries_d);
        let lookaside = registries_d.lookaside_usable(&endpoint.image)?;
        let attachments = registries_d.use_attachments(&endpoint.image);
        let (keeps_signatures, credentials) = (false, credentials::Found::default());
        Ok(RegistrySource {
            client,
            proxies,
            endpoint,
            lookaside,
            attachments,
            keeps_signatures,
            credentials,
            budget,
            deadline,
        })
    }
}

/// The moment in the middle between now and then.
fn halfway(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// A manifest, and where the rest is.
struct Found<'a> {
    source: Source<'a>,
    top_level: ManifestEvidence,
    /// The signatures of the manifest, if its digest was known beforehand.
    signatures: Option<Result<Vec<LocatedSignature>, Error>>,
}

impl<'a> Found<'a> {
    async fn of(source: Source<'a>) -> Result<Self, Error> {
        let top_level = source.manifest(None).await?;
        Ok(Self { source, top_level, signatures: None })
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
    Registry(Box<RegistrySource<'a>>),
}

struct RegistrySource<'a> {
    client: &'a registry::Client,
    proxies: Arc<Proxies>,
    endpoint: Endpoint,
    lookaside: LookasideUrl,
    attachments: bool,
    /// Whether the registry keeps simple signing signatures itself (rule X-1).
    keeps_signatures: bool,
    credentials: credentials::Found,
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
                let named = &source.endpoint.image;
                let digest = instance.as_ref().or(named.digest()).map(ToString::to_string);
                source.manifest(digest.as_deref().or(named.tag()).unwrap_or("latest")).await
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
                Error::Manifest { registry: source.endpoint.image.domain().to_owned(), detail }
            }
        }
    }
}

impl<'a> RegistrySource<'a> {
    /// The manifest, if it is there. What does not depend on it is asked for at the same time.
    async fn ask(mut self, signatures: bool, early: bool) -> Result<Found<'a>, Error> {
        let named = &self.endpoint.image;
        let digest = named.digest();
        let reference = digest.map(ToString::to_string).or(named.tag().map(str::to_owned));
        let manifest = self.manifest(reference.as_deref().unwrap_or("latest"));
        // Rule K-3: signatures are stored under the digest of the reference only if it is SHA-256.
        let pinned = digest.filter(|digest| early && digest.algorithm() == Algorithm::Sha256);
        let signatures = async {
            if !signatures {
                return Ok((false, None));
            }
            // Rule K-9: a registry that does not say what it is has nothing.
            let keeps_signatures = self.client.keeps_signatures(&self.errand()).await?;
            let found = match pinned {
                // A failure counts only if there is a manifest.
                Some(digest) => Some(self.find(digest, keeps_signatures).await),
                None => None,
            };
            Ok((keeps_signatures, found))
        };
        let (top_level, (keeps_signatures, signatures)) = tokio::try_join!(manifest, signatures)?;
        self.keeps_signatures = keeps_signatures;
        Ok(Found { source: Source::Registry(Box::new(self)), top_level, signatures })
    }

    fn errand(&self) -> Errand<'_> {
        Errand {
            image: &self.endpoint.image,
            insecure: self.endpoint.insecure,
            credentials: Some(&self.credentials),
            proxies: &self.proxies,
            budget: self.budget,
            deadline: self.deadline,
        }
    }

    async fn manifest(&self, reference: &str) -> Result<ManifestEvidence, Error> {
        let document = self.client.manifest(&self.errand(), reference).await?;
        Ok(ManifestEvidence {
            bytes: document.bytes,
            media_type: document.media_type,
            signatures: Vec::new(),
        })
    }

    async fn signatures(&self, digest: &Digest) -> Result<Vec<LocatedSignature>, Error> {
        self.find(digest, self.keeps_signatures).await
    }

    /// The registry's own store or the lookaside store, and the attachments, asked side by side (rule X-1).
    ///
    /// A failure of one fails all (rule X-4).
    async fn find(&self, digest: &Digest, keeps_signatures: bool) -> Result<Vec<LocatedSignature>, Error> {
        let (client, errand) = (self.client, self.errand());
        let stored = async {
            if keeps_signatures {
                extension::signatures(client, &errand, digest).await
            } else {
                lookaside::signatures(client, &errand, &self.lookaside, digest).await
            }
        };
        let attached = async {
            if self.attachments {
                attachment::signatures(client, &errand, digest).await
            } else {
                Ok(Vec::new())
            }
        };
        let (mut signatures, attached) = tokio::try_join!(stored, attached)?;
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
    /// A credential helper gave no answer, or may not be asked.
    CredentialHelper {
        /// Its name without `docker-credential-`.
        helper: String,
        /// The files that name it.
        named_in: Vec<String>,
        /// What is wrong; nothing that the helper said.
        fault: credentials::Fault,
    },
    /// Nobody who was asked has credentials, and several failed (rule U-3).
    CredentialStores {
        /// What is wrong with each, at least two.
        faults: Vec<Self>,
    },
    /// What arrived is not what its digest says.
    DigestMismatch {
        /// Where it came from.
        location: String,
        /// The digest that was asked for.
        wanted: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The image is neither on its mirrors nor where it belongs.
    Endpoints {
        /// Why not where it belongs; what counts (rule M-6).
        last: Box<Self>,
        /// Each mirror, and why not there.
        mirrors: Vec<(String, Self)>,
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
    /// What came instead of a manifest is none, or can be read in more than one way.
    Manifest {
        /// Host and port.
        registry: String,
        /// What is wrong.
        detail: String,
    },
    /// An image index has nothing for the platform.
    NoMatchingPlatform {
        /// The platform.
        wanted: String,
    },
    /// A proxy is set that cannot be used.
    Proxy {
        /// Where it is set.
        origin: &'static str,
        /// What is wrong.
        detail: String,
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
            Self::CredentialHelper { .. } => Code::CredentialHelperFailed,
            Self::CredentialStores { faults } => faults.first().map_or(Code::AuthFileInvalid, Self::code),
            Self::DigestMismatch { .. } => Code::DigestMismatch,
            Self::Endpoints { last, .. } => last.code(),
            Self::EvidenceTooLarge => Code::EvidenceTooLarge,
            Self::ImageNotFound { .. } => Code::ImageNotFound,
            Self::KeyFile { .. } => Code::KeyFileUnreadable,
            Self::Local { .. } => Code::LocalImageInvalid,
            Self::Lookaside { .. } => Code::LookasideUnavailable,
            Self::MalformedSignature { .. } => Code::MalformedSignature,
            Self::NoMatchingPlatform { .. } => Code::NoMatchingPlatform,
            Self::Proxy { .. } => Code::ProxyInvalid,
            Self::RegistryAuth { .. } => Code::RegistryAuth,
            Self::Manifest { .. } | Self::RegistryProtocol { .. } => Code::RegistryProtocol,
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
            Self::CredentialHelper { .. } => {
                "correct the helper or what names it, or name a file with literal credentials with --authfile"
            }
            Self::CredentialStores { .. } => {
                "correct one of them, or name a file with literal credentials with --authfile"
            }
            Self::DigestMismatch { .. } => {
                "the server sent other bytes than were asked for; do not use the image from there"
            }
            Self::Endpoints { last, .. } => last.help(),
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
            Self::Proxy { .. } => "write a URL that begins with http:// or https://",
            Self::RegistryAuth { .. } => {
                "log in with \"podman login\", or name an authentication file with --authfile"
            }
            Self::Manifest { .. } | Self::RegistryProtocol { .. } => {
                "check that the host is a container registry"
            }
            Self::RegistryUnavailable { .. } => "check the network and the registry, and try again",
            Self::Tls { .. } => {
                "put the certificate of the registry's authority into /etc/containers/certs.d/HOST:PORT/ca.crt, or name a directory with --cert-dir; plain HTTP is not supported"
            }
            Self::TimedOut { .. } => "try again, or allow more time with --timeout",
            Self::UnsupportedTransport(_) => "see \"Limitations\" in the README",
        }
    }
}

impl Error {
    /// Whether the fault is in what the administrator wrote, or left out.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::AuthFile { .. }
            | Self::Certificates { .. }
            | Self::CredentialHelper { .. }
            | Self::CredentialStores { .. }
            | Self::KeyFile { .. }
            | Self::Proxy { .. } => true,
            Self::Config(error) => error.is_configuration(),
            Self::Endpoints { last, .. } => last.is_configuration(),
            Self::Busy
            | Self::DigestMismatch { .. }
            | Self::EvidenceTooLarge
            | Self::ImageNotFound { .. }
            | Self::Local { .. }
            | Self::Lookaside { .. }
            | Self::MalformedSignature { .. }
            | Self::Manifest { .. }
            | Self::NoMatchingPlatform { .. }
            | Self::RegistryAuth { .. }
            | Self::RegistryProtocol { .. }
            | Self::RegistryUnavailable { .. }
            | Self::TimedOut { .. }
            | Self::Tls { .. }
            | Self::UnsupportedTransport(_) => false,
        }
    }

    /// Whether it lies with the registry, so that another way to it may lead to more.
    fn is_of_registry(&self) -> bool {
        match self {
            Self::ImageNotFound { .. }
            | Self::RegistryAuth { .. }
            | Self::RegistryProtocol { .. }
            | Self::RegistryUnavailable { .. }
            | Self::Tls { .. } => true,
            Self::AuthFile { .. }
            | Self::Busy
            | Self::Certificates { .. }
            | Self::Config(_)
            | Self::CredentialHelper { .. }
            | Self::CredentialStores { .. }
            | Self::DigestMismatch { .. }
            | Self::Endpoints { .. }
            | Self::EvidenceTooLarge
            | Self::KeyFile { .. }
            | Self::Local { .. }
            | Self::Lookaside { .. }
            | Self::MalformedSignature { .. }
            | Self::Manifest { .. }
            | Self::NoMatchingPlatform { .. }
            | Self::Proxy { .. }
            | Self::TimedOut { .. }
            | Self::UnsupportedTransport(_) => false,
        }
    }

    /// Whether it means that there is no manifest, or none that may be asked for, at one endpoint of several.
    ///
    /// A manifest that is not what it should be is one: nothing else is tried then (rule M-6).
    fn is_of_endpoint(&self) -> bool {
        let no_way_there = matches!(
            self,
            Self::AuthFile { .. }
                | Self::Certificates { .. }
                | Self::Config(_)
                | Self::CredentialHelper { .. }
                | Self::CredentialStores { .. }
                | Self::TimedOut { .. }
        );
        no_way_there || self.is_of_registry()
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
            Self::CredentialHelper { helper, named_in, fault } => {
                write!(f, "the credential helper \"{}\"", escape(helper))?;
                if !named_in.is_empty() {
                    write!(f, " of \"{}\"", escape(&named_in.join("\", \"")))?;
                }
                write!(f, " gave no credentials: {}", escape(&fault.to_string()))
            }
            Self::CredentialStores { faults } => {
                f.write_str("no store of credentials has any, and several failed")?;
                faults.iter().try_for_each(|fault| write!(f, "; {fault}"))
            }
            Self::DigestMismatch { location, wanted, found } => {
                write!(f, "digest mismatch: {} should be {wanted} and is {found}", escape(location))
            }
            Self::Endpoints { last, mirrors } => {
                write!(f, "{last}; its mirrors failed as well")?;
                for (image, error) in mirrors {
                    write!(f, "; \"{}\": {error}", escape(image))?;
                }
                Ok(())
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
            Self::Proxy { origin, detail } => write!(f, "cannot use {origin}: {}", escape(detail)),
            Self::RegistryAuth { registry, detail } => {
                write!(f, "the registry {} refuses access: {}", escape(registry), escape(detail))
            }
            Self::Manifest { registry, detail } | Self::RegistryProtocol { registry, detail } => {
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
