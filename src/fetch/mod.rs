//! The only input and output: registries, lookaside stores, local images, key files.
//!
//! Every read has a limit, and everything that one verification reads comes out of one [`Budget`].

pub mod attachment;
mod budget;
pub mod credentials;
pub mod descriptor;
pub mod extension;
pub mod host_root;
pub mod keys;
pub mod local;
mod locations;
pub mod lookaside;
mod principal;
pub mod referrers;
pub mod registry;
mod source;
pub mod surroundings;
pub mod trust_update;

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::{self, Endpoint, Environment};
use crate::diagnostic::{Code, escape};
use crate::digest::Digest;
use crate::evaluate::evidence::{
    Evidence, InstanceEvidence, LocatedSignature, ManifestEvidence, Needs, Question, Subject,
};
use crate::fetch::budget::Reserve;
use crate::fetch::source::{Found, RegistrySource, Source};
use crate::inspect::{Failure, Store};
use crate::manifest::{self, Platform};
use crate::reference::{ImageReference, Named, Transport};
use crate::verify::UntrustedSignature;

pub use budget::{ALL_EVIDENCE_BYTES, Budget, EVIDENCE_BYTES, EVIDENCE_REQUESTS};
pub use locations::{Configuration, Locations, Places, ProxySource, Ways};
pub use principal::{Asker, Principal, PrincipalClass};

/// Largest manifest: 4 MiB, as the reference allows (rule H-10).
pub const MANIFEST_BYTES: usize = 4 << 20;

/// Largest signature blob or attachment layer: 4 MiB (rules K-6, A-5).
pub const SIGNATURE_BYTES: usize = crate::verify::SIGNATURE_BYTES;

/// Largest key file: 4 MiB, design decision 6.
pub const KEY_FILE_BYTES: usize = 4 << 20;

/// What was gathered, and what to know about it.
#[derive(Debug, Default)]
pub struct Gathered<'a> {
    /// The evidence.
    pub evidence: Evidence,
    /// Where the image really came from, if that is a registry: perhaps a mirror (rule M-7).
    pub source: Option<Named>,
    /// Things to know that change nothing. Untrusted: escape before printing.
    pub warnings: Vec<String>,
    /// Where more is to be had.
    pub place: Option<Place<'a>>,
}

/// Where an image was found, to ask for what other tools do not look for.
pub struct Place<'a>(Source<'a>);

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Local(image) => f.debug_tuple("Place").field(image).finish(),
            Source::Registry(source) => f.debug_tuple("Place").field(&source.endpoint).finish(),
        }
    }
}

impl Place<'_> {
    /// Adds the signatures in manifests that refer to those that are judged.
    ///
    /// What is returned is why they may not be all: "not to be had" is not "none" (design decision 3.4).
    pub async fn add_referrers(&self, evidence: &mut Evidence, question: &Question) -> Option<Error> {
        let Self(source) = self;
        let Evidence { top_level, instance, .. } = evidence;
        let is_judged = instance.is_none() || question.subject != Subject::Instance;
        let top_level = top_level.as_mut().filter(|_| is_judged);
        let instance = instance.as_mut().map(|instance| &mut instance.manifest);
        let add = async |manifest: Option<&mut ManifestEvidence>| {
            let manifest = manifest?;
            // A manifest without a digest is refused whatever refers to it.
            let digest = manifest::digest(&manifest.bytes).ok()?;
            let found = source.referrers(&digest).await;
            manifest.referrers.extend(found.signatures);
            found.failure
        };
        let (one, other) = tokio::join!(add(top_level), add(instance));
        one.or(other)
    }
}

/// An image as far as it could be had, to be looked over.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// What the reference names.
    pub top_level: Option<SurveyedManifest>,
    /// If that is an index: the instance for the platform.
    pub instance: Option<SurveyedManifest>,
    /// Why there is none, if there should be one.
    pub failure: Option<Failure>,
    /// Where the image really came from, if that is a registry: perhaps a mirror (rule M-7).
    pub source: Option<Named>,
    /// Whether registries.d keeps sigstore attachments from being looked for.
    pub attachments_disabled: bool,
    /// Things to know. Untrusted: escape before printing.
    pub warnings: Vec<String>,
}

/// A manifest and everything that is attached to it.
#[derive(Debug)]
pub struct SurveyedManifest {
    /// The bytes as they were received.
    pub bytes: Vec<u8>,
    /// The type that the source claimed. Untrusted: escape before printing.
    pub media_type: String,
    /// Its digest, unless it can be read in more than one way.
    pub digest: Option<Digest>,
    /// The places that were asked; none for a manifest without a digest.
    pub stores: Vec<Store>,
}

impl SurveyedManifest {
    async fn of(manifest: ManifestEvidence, source: &Source<'_>, instance: Option<&Digest>) -> Self {
        let ManifestEvidence { bytes, media_type, .. } = manifest;
        let digest = manifest::digest(&bytes).ok();
        let stores = match &digest {
            Some(digest) => source.survey(digest, instance).await,
            None => Vec::new(),
        };
        Self { bytes, media_type, digest, stores }
    }
}

/// The one who gathers: connections, tokens and key files that outlive a verification.
#[derive(Debug)]
pub struct Client {
    registry: registry::Client,
    configuration: Arc<Configuration>,
    keys: Arc<keys::KeyFiles>,
    reserve: Reserve,
}

impl Client {
    /// A client that has asked nothing yet.
    pub fn new(settings: registry::Settings, configuration: Configuration, environment: Environment) -> Self {
        let registry = registry::Client::new(settings);
        let (configuration, keys) = (Arc::new(configuration), Arc::new(keys::KeyFiles::new(environment)));
        Self { registry, configuration, keys, reserve: Reserve::new() }
    }

    /// The configuration as it is on disk now. It blocks.
    pub fn locations(&self) -> Result<Locations, Error> {
        self.configuration.load()
    }

    /// The budget of one verification. Keep it as long as the evidence that it paid for.
    pub fn budget(&self, asker: Asker) -> Budget {
        self.reserve.budget(asker)
    }

    /// The same, but key files that others than root and who runs this process can change are errors (T-23).
    pub fn only_ours(self) -> Self {
        Self { keys: Arc::new(self.keys.afresh().only_ours()), ..self }
    }

    /// The key files, for what is judged without gathering.
    pub fn keys(&self) -> &Arc<keys::KeyFiles> {
        &self.keys
    }

    /// Gathers what `needs` says of an image, and nothing else; for one in a registry on these ways.
    pub async fn gather<'a>(
        &'a self,
        image: &ImageReference,
        ways: Option<&Ways>,
        needs: &Needs,
        question: &Question,
        principal: &'a Principal,
        (budget, deadline): (&'a Budget, Instant),
    ) -> Result<Gathered<'a>, Error> {
        let mut evidence = Evidence::default();
        if !needs.manifest {
            return Ok(Gathered { evidence, ..Gathered::default() });
        }
        let found = match image.in_registry().zip(ways) {
            Some((named, ways)) => {
                let limits = (budget, deadline);
                self.reach(named, ways, needs, question, principal, limits).await?
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
        let Found { source, top_level, signatures, mut warnings } = found;
        let origin = match &source {
            Source::Registry(registry) => {
                evidence.attachments_disabled = !registry.attachments;
                warnings.extend(registry.warnings());
                Some(registry.endpoint.image.clone())
            }
            Source::Local(_) => None,
        };
        let signed = async |manifest: ManifestEvidence, instance: Option<&Digest>| {
            if needs.signatures {
                Ok::<_, Error>(source.signatures(&manifest, instance).await?.of(manifest))
            } else {
                Ok(manifest)
            }
        };
        let signed_top_level = async |top_level: ManifestEvidence| match signatures {
            Some(signatures) => Ok(signatures?.of(top_level)),
            None => signed(top_level, None).await,
        };
        let index_type = source.index_type(&top_level)?.filter(|_| question.subject != Subject::TopLevel);
        let Some(index_type) = index_type else {
            evidence.top_level = Some(signed_top_level(top_level).await?);
            return Ok(Gathered { evidence, source: origin, warnings, place: source.into_place() });
        };
        let wanted = source.choose(&top_level, index_type, &question.platform)?;
        let instance = async { signed(source.instance(&wanted).await?, Some(&wanted)).await };
        let top_level = async {
            match question.subject {
                Subject::Instance => Ok(top_level),
                Subject::Both | Subject::Either | Subject::TopLevel => signed_top_level(top_level).await,
            }
        };
        let (top_level, instance) = tokio::try_join!(top_level, instance)?;
        evidence.top_level = Some(top_level);
        evidence.instance = Some(InstanceEvidence { digest: wanted, manifest: instance });
        Ok(Gathered { evidence, source: origin, warnings, place: source.into_place() })
    }

    /// Looks everything over that is attached to an image and to its instance for a platform.
    pub async fn survey(
        &self,
        image: &ImageReference,
        platform: &Platform,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Surveyed, Error> {
        let needs = Needs { manifest: true, attachments: true, ..Needs::default() };
        let question =
            Question { require_signature: false, subject: Subject::TopLevel, platform: platform.clone() };
        let ways = self.ways(image).await?;
        let (ways, owner) = (ways.as_ref(), &Principal::OWNER);
        let gathering = self.gather(image, ways, &needs, &question, owner, (budget, deadline));
        let late = || Error::TimedOut { waiting_for: "the manifest".to_owned() };
        let gathered = tokio::time::timeout_at(deadline, gathering).await.unwrap_or_else(|_| Err(late()))?;
        let Gathered { evidence, source: origin, warnings, place } = gathered;
        let (Some(top_level), Some(Place(source))) = (evidence.top_level, place) else {
            return Err(Error::UnsupportedTransport(image.transport()));
        };
        let instance = async {
            let Some(index_type) = source.index_type(&top_level)? else { return Ok(None) };
            let wanted = source.choose(&top_level, index_type, platform)?;
            let reading = tokio::time::timeout_at(deadline, source.instance(&wanted));
            let manifest = reading.await.unwrap_or_else(|_| Err(late()))?;
            Ok(Some(SurveyedManifest::of(manifest, &source, Some(&wanted)).await))
        };
        let whole = SurveyedManifest::of(top_level.clone(), &source, None);
        let (top_level, instance) = tokio::join!(whole, instance);
        let (instance, failure) = match instance {
            Ok(instance) => (instance, None),
            Err(error) => (None, Some(Error::told(&error))),
        };
        Ok(Surveyed {
            top_level: Some(top_level),
            instance,
            failure,
            source: origin,
            attachments_disabled: evidence.attachments_disabled,
            warnings,
        })
    }

    /// As [`Client::gather`] for a manifest that is there already: only its signatures are looked for, where the image
    /// belongs and on no mirror, because a place proves by its manifest that it is a place of the image (rule M-6).
    ///
    /// If `signatures` are there, too, nobody is asked anything.
    pub async fn gather_signatures<'a>(
        &'a self,
        image: &ImageReference,
        (manifest, signatures): (ManifestEvidence, Option<Vec<LocatedSignature>>),
        ways: &Ways,
        needs: &Needs,
        principal: &'a Principal,
        (budget, deadline): (&'a Budget, Instant),
    ) -> Result<Gathered<'a>, Error> {
        let named = image.in_registry().ok_or(Error::UnsupportedTransport(image.transport()))?;
        let mut evidence = Evidence::default();
        let locations = &ways.locations;
        let endpoints = locations.registries_conf.endpoints(named)?;
        let place = endpoints.iter().find(|endpoint| !endpoint.is_mirror).unwrap_or(endpoints.first());
        check_blocked(place)?;
        let signatures = signatures.or_else(|| (!needs.signatures).then(Vec::new));
        if let Some(signatures) = signatures {
            // Who hands signatures over opens no gate that registries.d keeps shut.
            let is_open = locations.registries_d.use_attachments(&place.image);
            let is_free = |located: &LocatedSignature| {
                is_open || matches!(located.signature, UntrustedSignature::SimpleSigning(_))
            };
            let (signatures, mut referrers): (Vec<_>, Vec<_>) = signatures.into_iter().partition(is_free);
            if !needs.attachments {
                referrers.clear();
            }
            evidence.attachments_disabled = !is_open;
            evidence.top_level = Some(ManifestEvidence { signatures, referrers, ..manifest });
            return Ok(Gathered { evidence, ..Gathered::default() });
        }
        let limits = (budget, deadline);
        let mut source = self.source(place, ways, needs, principal, limits).await?;
        source.keeps_signatures = self.registry.keeps_signatures(&source.errand()).await?;
        evidence.attachments_disabled = !source.attachments;
        let (warnings, origin) = (source.warnings(), Some(source.endpoint.image.clone()));
        let source = Source::Registry(Box::new(source));
        evidence.top_level = Some(source.signatures(&manifest, None).await?.of(manifest));
        Ok(Gathered { evidence, source: origin, warnings, place: source.into_place() })
    }

    /// What signatures are checked with, as evidence about no image yet.
    pub async fn material(&self, keys: &Arc<keys::KeyFiles>, needs: &Needs) -> Result<Evidence, Error> {
        let (keys, wanted) = (Arc::clone(keys), needs.clone());
        let read = move || {
            let mut evidence = Evidence::default();
            keys.add(&wanted, &mut evidence)?;
            Ok(evidence)
        };
        blocking(read).await
    }

    /// The ways to an image, as the configuration is on disk now; none to one outside registries.
    pub async fn ways(&self, image: &ImageReference) -> Result<Option<Ways>, Error> {
        if image.in_registry().is_none() {
            return Ok(None);
        }
        let configuration = Arc::clone(&self.configuration);
        blocking(move || configuration.load_ways()).await.map(Some)
    }

    /// Whether the configuration that every image in a registry needs can be used. It blocks.
    pub fn check(&self) -> Result<(), Error> {
        self.configuration.load_ways().map(|_| ())
    }

    /// The first endpoint that has the manifest; everything else is asked of that one alone (rules M-5, M-6).
    async fn reach<'a>(
        &'a self,
        named: &Named,
        ways: &Ways,
        needs: &Needs,
        question: &Question,
        principal: &'a Principal,
        (budget, deadline): (&'a Budget, Instant),
    ) -> Result<Found<'a>, Error> {
        let endpoints: Vec<Endpoint> =
            ways.locations.registries_conf.endpoints(named)?.iter().cloned().collect();
        let early = endpoints.len() == 1 && needs.signatures && question.subject != Subject::Instance;
        let mut mirrors = Vec::new();
        for (endpoint, left) in endpoints.iter().zip((0..endpoints.len()).rev()) {
            let is_last = left == 0;
            // A mirror that says nothing leaves time for those after it.
            let until = share(Instant::now(), deadline, left);
            let attempt = async {
                let limits = (budget, deadline);
                let source = self.source(endpoint, ways, needs, principal, limits).await?;
                // Where another place would be asked instead, each must say what it is (rules H-1, K-9).
                if endpoints.len() > 1 {
                    self.registry.keeps_signatures(&source.errand()).await?;
                }
                source.ask(needs.signatures, early).await
            };
            let outcome = tokio::time::timeout_at(until, attempt).await.unwrap_or_else(|_| {
                Err(Error::TimedOut { waiting_for: format!("the manifest of {}", endpoint.image) })
            });
            match outcome {
                Ok(mut found) => {
                    let passed = |(image, error)| format!("the mirror \"{image}\" was passed over: {error}");
                    found.warnings = mirrors.into_iter().map(passed).collect();
                    return Ok(found);
                }
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
    async fn source<'a>(
        &'a self,
        endpoint: &Endpoint,
        Ways { locations, proxies }: &Ways,
        needs: &Needs,
        principal: &'a Principal,
        (budget, deadline): (&'a Budget, Instant),
    ) -> Result<RegistrySource<'a>, Error> {
        check_blocked(endpoint)?;
        let (client, proxies) = (&self.registry, Arc::clone(proxies));
        let (endpoint, registries_d) = (endpoint.clone(), &locations.registries_d);
        let lookaside = registries_d.lookaside_usable(&endpoint.image)?;
        let attachments = registries_d.use_attachments(&endpoint.image);
        let (keeps_signatures, credentials) = (false, credentials::Found::default());
        let mut source = RegistrySource {
            client,
            proxies,
            endpoint,
            lookaside,
            attachments,
            attachments_anyway: needs.attachments,
            keeps_signatures,
            credentials,
            principal,
            budget,
            deadline,
        };
        let stores = credentials::Stores {
            names: locations.registries_conf.credential_helpers(),
            named_in: locations.registries_conf.credential_helpers_file(),
        };
        source.credentials = self.registry.credentials(&source.errand(), stores).await?;
        Ok(source)
    }
}

/// Rule M-8.
fn check_blocked(endpoint: &Endpoint) -> Result<(), Error> {
    match endpoint.blocked.clone() {
        Some(entry) => {
            let image = Box::new(endpoint.image.clone());
            Err(config::Error::RegistryBlocked { image, entry }.into())
        }
        None => Ok(()),
    }
}

/// The end of an equal share of the time, where as many `others` come after it.
fn share(now: Instant, deadline: Instant, others: usize) -> Instant {
    let shares = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
    now + deadline.saturating_duration_since(now) / shares
}

/// Runs what waits for a disk where it holds nobody else up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(Error::Local { path: String::new(), detail: format!("reading failed: {panic}") })
    })
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
            Self::RegistryUnavailable { .. } => {
                "check the network, the proxy if there is one, and the registry, and try again"
            }
            Self::Tls { .. } => {
                "put the certificate of the registry's authority into /etc/containers/certs.d/HOST:PORT/ca.crt, or name a directory with --cert-dir; if the registry is meant to need none, or to speak plain HTTP, registries.conf can call it insecure"
            }
            Self::TimedOut { .. } => "try again, or allow more time with --timeout",
            Self::UnsupportedTransport(_) => "see \"Limitations\" in the README",
        }
    }
}

impl Error {
    /// The error as data, for where it is told beside other things.
    pub(in crate::fetch) fn told(&self) -> Failure {
        Failure { code: self.code(), message: self.to_string(), help: self.help().to_owned() }
    }

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

    #[tokio::test]
    async fn no_mirror_takes_the_time_of_those_after_it() {
        let start = Instant::now();
        let deadline = start + std::time::Duration::from_secs(90);
        for count in [1_u32, 2, 3, 30] {
            let mut now = start;
            for others in (0..count).rev() {
                let until = share(now, deadline, usize::try_from(others).unwrap());
                assert!(until - now >= (deadline - start) / count - std::time::Duration::from_micros(1));
                now = until;
            }
            assert_eq!(now, deadline);
            assert_eq!(
                share(deadline + std::time::Duration::from_secs(1), deadline, 1),
                deadline + std::time::Duration::from_secs(1)
            );
        }
    }
}
