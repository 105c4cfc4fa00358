//! [`Source`]: where the manifests and signatures of one image come from.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::{Endpoint, LookasideUrl};
use crate::digest::{Algorithm, Digest};
use crate::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use crate::fetch::attachment::Tag;
use crate::fetch::referrers::Survey;
use crate::fetch::registry::{self, Errand, Proxies};
use crate::fetch::{
    Budget, Error, Place, Principal, attachment, blocking, credentials, extension, local, lookaside,
    referrers,
};
use crate::inspect::{Item, Store, StoreKind};
use crate::manifest::{self, Malformed, NoInstance, Platform};

/// Where the manifests and signatures of one image come from.
pub(super) enum Source<'a> {
    Local(local::Image),
    Registry(Box<RegistrySource<'a>>),
}

pub(super) struct RegistrySource<'a> {
    pub(super) client: &'a registry::Client,
    pub(super) proxies: Arc<Proxies>,
    pub(super) endpoint: Endpoint,
    pub(super) lookaside: LookasideUrl,
    /// Whether registries.d has sigstore attachments looked for.
    pub(super) attachments: bool,
    /// Whether the policy has, whatever registries.d says.
    pub(super) attachments_anyway: bool,
    /// Whether the registry keeps simple signing signatures itself (rule X-1).
    pub(super) keeps_signatures: bool,
    pub(super) credentials: credentials::Found,
    pub(super) principal: &'a Principal,
    pub(super) budget: &'a Budget,
    pub(super) deadline: Instant,
}

impl<'a> Source<'a> {
    /// The manifest that the name means, or that of an instance.
    pub(super) async fn manifest(&self, instance: Option<&Digest>) -> Result<ManifestEvidence, Error> {
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

    /// The type of an index, if the manifest is one. What cannot be read for certain is none; the judgement refuses it.
    pub(super) fn index_type(&self, manifest: &ManifestEvidence) -> Result<Option<&'static str>, Error> {
        match manifest::index_type(&manifest.bytes, &manifest.media_type) {
            Ok(index_type) => Ok(index_type),
            Err(Malformed) if manifest::digest(&manifest.bytes).is_err() => Ok(None),
            Err(Malformed) => Err(self.malformed("the manifest is not of the type that the source says")),
        }
    }

    /// The digest that an index has for the platform.
    pub(super) fn choose(
        &self,
        index: &ManifestEvidence,
        index_type: &str,
        platform: &Platform,
    ) -> Result<Digest, Error> {
        manifest::choose_instance(&index.bytes, index_type, platform).map_err(|error| match error {
            NoInstance::Malformed => self.malformed("the image index cannot be read"),
            NoInstance::NoMatch => Error::NoMatchingPlatform { wanted: platform.to_string() },
        })
    }

    /// The manifest that an index has under this digest, which is no index again (rule E-34).
    pub(super) async fn instance(&self, digest: &Digest) -> Result<ManifestEvidence, Error> {
        let instance = self.manifest(Some(digest)).await?;
        if manifest::index_type(&instance.bytes, &instance.media_type) != Ok(None) {
            return Err(self.malformed("what the image index has for the platform is no image manifest"));
        }
        Ok(instance)
    }

    /// The signatures stored for that manifest.
    pub(super) async fn signatures(
        &self,
        manifest: &ManifestEvidence,
        instance: Option<&Digest>,
    ) -> Result<Signatures, Error> {
        match self {
            Self::Local(image) => {
                let (image, instance) = (image.clone(), instance.cloned());
                let common = blocking(move || image.signatures(instance.as_ref())).await?;
                Ok(Signatures { common, ours: Vec::new() })
            }
            // A manifest without a digest has none, and is refused when it is judged.
            Self::Registry(source) => match manifest::digest(&manifest.bytes) {
                Ok(digest) => source.signatures(&digest).await,
                Err(_) => Ok(Signatures::default()),
            },
        }
    }

    /// Where more is to be had, unless registries.d keeps sigstore signatures from being looked for.
    pub(super) fn into_place(self) -> Option<Place<'a>> {
        match &self {
            Self::Registry(source) if !source.wants_attachments() => None,
            Self::Local(_) | Self::Registry(_) => Some(Place(self)),
        }
    }

    /// The signatures in manifests that refer to the one with this digest.
    pub(super) async fn referrers(&self, digest: &Digest) -> referrers::Found {
        match self {
            Self::Local(image) => {
                let (image, digest) = (image.clone(), digest.clone());
                let found = blocking(move || Ok(image.referrers(&digest))).await;
                found.unwrap_or_else(referrers::Found::failed)
            }
            Self::Registry(source) => referrers::signatures(source.client, &source.errand(), digest).await,
        }
    }

    /// Everything that is attached to a manifest, place by place. What fails is told in its place.
    pub(super) async fn survey(&self, digest: &Digest, instance: Option<&Digest>) -> Vec<Store> {
        match self {
            Self::Local(image) => {
                let (mut stores, location) = (Vec::new(), image.path().to_owned());
                let (files, wanted) = (image.clone(), instance.cloned());
                let found = blocking(move || files.signatures(wanted.as_ref())).await;
                let (signatures, failures) = match found {
                    Ok(signatures) => (signatures, Vec::new()),
                    Err(error) => (Vec::new(), vec![error.told()]),
                };
                let items = signatures.into_iter().map(Item::of_signature).collect();
                let kind = StoreKind::Local;
                stores.push(Store { kind, location: location.clone(), items, failures });
                let (files, wanted) = (image.clone(), digest.clone());
                let survey = blocking(move || Ok(files.survey(&wanted))).await;
                let failed = |error| Some(Survey { failures: vec![error], ..Survey::default() });
                let into_store = |survey: Survey| survey.into_store(location.clone(), &location);
                stores.extend(survey.unwrap_or_else(failed).map(into_store));
                stores
            }
            Self::Registry(source) => source.survey(digest).await,
        }
    }

    pub(super) fn malformed(&self, detail: &str) -> Error {
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
    /// Whether sigstore attachments are looked for.
    fn wants_attachments(&self) -> bool {
        self.attachments || self.attachments_anyway
    }

    /// The manifest, if it is there. What does not depend on it is asked for at the same time.
    pub(super) async fn ask(mut self, signatures: bool, early: bool) -> Result<Found<'a>, Error> {
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
        let source = Source::Registry(Box::new(self));
        Ok(Found { source, top_level, signatures, warnings: Vec::new() })
    }

    /// What to know about the place.
    pub(super) fn warnings(&self) -> Vec<String> {
        let insecure = self.endpoint.insecure.then(|| {
            let host = self.endpoint.image.domain();
            format!("{host} is insecure in registries.conf: it need not prove who it is")
        });
        // Which files there are is not for everybody (T-34).
        let told = self.credentials.warnings.iter().filter(|_| !self.principal.is_guarded());
        told.cloned().chain(insecure).collect()
    }

    pub(super) fn errand(&self) -> Errand<'_> {
        Errand {
            image: &self.endpoint.image,
            insecure: self.endpoint.insecure,
            credentials: Some(&self.credentials),
            principal: self.principal,
            proxies: &self.proxies,
            budget: self.budget,
            deadline: self.deadline,
        }
    }

    pub(super) async fn manifest(&self, reference: &str) -> Result<ManifestEvidence, Error> {
        let document = self.client.manifest(&self.errand(), reference).await?;
        Ok(ManifestEvidence::new(document.bytes, document.media_type))
    }

    pub(super) async fn signatures(&self, digest: &Digest) -> Result<Signatures, Error> {
        self.find(digest, self.keeps_signatures).await
    }

    /// The registry's own store or the lookaside store, and the attachments, asked side by side (rule X-1).
    ///
    /// A failure of one fails all (rule X-4).
    pub(super) async fn find(&self, digest: &Digest, keeps_signatures: bool) -> Result<Signatures, Error> {
        let (client, errand) = (self.client, self.errand());
        let stored = async {
            if keeps_signatures {
                extension::signatures(client, &errand, digest).await
            } else {
                lookaside::signatures(client, &errand, &self.lookaside, digest).await
            }
        };
        let attached = async {
            if self.wants_attachments() {
                attachment::signatures(client, &errand, digest).await
            } else {
                Ok(Vec::new())
            }
        };
        let (mut common, attached) = tokio::try_join!(stored, attached)?;
        if !self.attachments {
            return Ok(Signatures { common, ours: attached });
        }
        common.extend(attached);
        Ok(Signatures { common, ours: Vec::new() })
    }

    /// Everything that is attached to a manifest, whatever registries.d says of attachments.
    async fn survey(&self, digest: &Digest) -> Vec<Store> {
        let errand = self.errand();
        let tagged = async |kind, tag: Tag| {
            let mut items = Vec::new();
            let adding = attachment::add(self.client, &errand, digest, tag, &mut items);
            let failures = self.in_time(adding).await.err().iter().map(Error::told).collect();
            Store { kind, location: tag.place(&errand, digest), items, failures }
        };
        let referrers = async {
            let name = format!("docker://{}", errand.image.name());
            let survey = referrers::survey(self.client, &errand, digest).await;
            survey.into_store(format!("{name}@{digest}"), &name)
        };
        let (stored, attachments, attestations, sboms, referrers) = tokio::join!(
            self.survey_stored(digest),
            tagged(StoreKind::Attachments, Tag::Signatures),
            tagged(StoreKind::Attestations, Tag::Attestations),
            tagged(StoreKind::Sboms, Tag::Sboms),
            referrers,
        );
        vec![stored, attachments, referrers, attestations, sboms]
    }

    /// The registry's own store, or the lookaside store (rule X-1).
    async fn survey_stored(&self, digest: &Digest) -> Store {
        let (client, errand) = (self.client, self.errand());
        let keeps_signatures = client.keeps_signatures(&errand).await;
        let (kind, location, signatures, failure) = match keeps_signatures {
            Ok(true) => {
                let found = self.in_time(extension::signatures(client, &errand, digest)).await;
                let (signatures, failure) = match found {
                    Ok(signatures) => (signatures, None),
                    Err(error) => (Vec::new(), Some(error)),
                };
                let location = format!("https://{}", errand.image.domain());
                (StoreKind::Extension, location, signatures, failure)
            }
            Ok(false) | Err(_) => {
                let mut signatures = Vec::new();
                let failure = match keeps_signatures {
                    Ok(_) => {
                        let found = &mut signatures;
                        let adding = lookaside::add(client, &errand, &self.lookaside, digest, found);
                        self.in_time(adding).await.err()
                    }
                    Err(error) => Some(error),
                };
                let location = self.lookaside.signature(digest, 1).to_string();
                (StoreKind::Lookaside, location, signatures, failure)
            }
        };
        let items = signatures.into_iter().map(Item::of_signature).collect();
        Store { kind, location, items, failures: failure.iter().map(Error::told).collect() }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let timed_out = |_| Err(Error::TimedOut { waiting_for: "what is attached".to_owned() });
        tokio::time::timeout_at(self.deadline, work).await.unwrap_or_else(timed_out)
    }
}

/// The signatures of a manifest.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    /// Those that other tools find, too.
    pub(super) common: Vec<LocatedSignature>,
    /// Those that only vouchd looks for.
    pub(super) ours: Vec<LocatedSignature>,
}

impl Signatures {
    pub(super) fn of(self, manifest: ManifestEvidence) -> ManifestEvidence {
        ManifestEvidence { signatures: self.common, referrers: self.ours, ..manifest }
    }
}

/// A manifest, and where the rest is.
pub(super) struct Found<'a> {
    pub(super) source: Source<'a>,
    pub(super) top_level: ManifestEvidence,
    /// The signatures of the manifest, if its digest was known beforehand.
    pub(super) signatures: Option<Result<Signatures, Error>>,
    /// What to know about the way there.
    pub(super) warnings: Vec<String>,
}

impl<'a> Found<'a> {
    pub(super) async fn of(source: Source<'a>) -> Result<Self, Error> {
        let top_level = source.manifest(None).await?;
        Ok(Self { source, top_level, signatures: None, warnings: Vec::new() })
    }
}
