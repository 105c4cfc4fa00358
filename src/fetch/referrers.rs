//! Referrers: manifests that name another one as their `subject`, as cosign 3 attaches signatures.
//!
//! OCI distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema". Both places are asked and what they list
//! is united. A list is a hint: only a manifest that itself names the subject counts.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};

use crate::diagnostic::{Code, clip};
use crate::digest::Digest;
use crate::evaluate::evidence::LocatedSignature;
use crate::fetch::attachment::ANNOTATIONS;
use crate::fetch::registry::{Client, Errand, Page};
use crate::fetch::{Error, SIGNATURE_BYTES};
use crate::inspect::{Descriptor, Failure, Item, Store, StoreKind};
use crate::json::{self, Limits, Value};
use crate::manifest::OCI_MANIFEST;
use crate::verify::{UntrustedSignature, UntrustedSigstore};

/// Most referrers of one manifest: 256, design decision 6.
pub const REFERRERS: usize = 256;

/// Most pages of a list: 16, design decision 6.
pub const PAGES: usize = 16;

/// What was found, and why it may not be everything.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The signatures, in the order of the lists.
    pub signatures: Vec<LocatedSignature>,
    /// The first of the failures: "not to be had" is not "none" (design decision 3.4).
    pub failure: Option<Error>,
}

/// The signatures that refer to the manifest with this digest.
///
/// What is no signature is passed over; what cannot be fetched is a failure beside the others.
pub async fn signatures(client: &Client, errand: &Errand<'_>, digest: &Digest) -> Found {
    let Survey { opened, failures, .. } = survey(client, errand, digest).await;
    let mut found = Found { signatures: Vec::new(), failure: failures.into_iter().next() };
    for answer in opened {
        match answer.signatures {
            Ok(signatures) => found.signatures.extend(signatures),
            Err(error) => found.fail(error),
        }
    }
    found
}

/// Everything that refers to a manifest.
#[derive(Debug, Default)]
pub(in crate::fetch) struct Survey {
    /// What may be a signature.
    pub(in crate::fetch) opened: Vec<Opened>,
    /// What the lists call something else, each once.
    pub(in crate::fetch) others: Vec<Descriptor>,
    /// Why the lists may not be all.
    pub(in crate::fetch) failures: Vec<Error>,
}

impl Survey {
    /// The same as a place with things in it, of which so many are told as may be opened. A digest after `name` tells
    /// where one is.
    pub(in crate::fetch) fn into_store(self, location: String, name: &str) -> Store {
        let mut failures: Vec<Failure> = self.failures.iter().map(Error::told).collect();
        let locate =
            |descriptor: &Descriptor| format!("{name}@{}", descriptor.digest.as_deref().unwrap_or_default());
        let opened = self.opened.into_iter().map(|Opened { descriptor, signatures }| {
            let (signatures, failure) = match signatures {
                Ok(signatures) => (signatures, None),
                Err(error) => (Vec::new(), Some(error.told())),
            };
            Item { location: locate(&descriptor), descriptor, opened: true, signatures, failure }
        });
        let mut items: Vec<Item> = opened.collect();
        let room = REFERRERS.saturating_sub(items.len());
        if let Some(unlisted) = self.others.len().checked_sub(room).filter(|count| *count > 0) {
            failures.push(Failure {
                code: Code::EvidenceTooLarge,
                message: format!(
                    "at least {unlisted} more are listed there, and left out: only {REFERRERS} are told"
                ),
                help: "remove what nobody needs, or look with another tool, such as oras".to_owned(),
            });
        }
        items.extend(self.others.into_iter().take(room).map(|descriptor| Item {
            location: locate(&descriptor),
            descriptor,
            opened: false,
            signatures: Vec::new(),
            failure: None,
        }));
        Store { kind: StoreKind::Referrers, location, items, failures }
    }
}

/// A manifest that may hold signatures, and those in it.
#[derive(Debug)]
pub(in crate::fetch) struct Opened {
    pub(in crate::fetch) descriptor: Descriptor,
    pub(in crate::fetch) signatures: Result<Vec<LocatedSignature>, Error>,
}

/// The manifests that refer to the one with this digest. Only what may be a signature is fetched.
pub(in crate::fetch) async fn survey(client: &Client, errand: &Errand<'_>, digest: &Digest) -> Survey {
    let (mut listed, mut tagged) = (List::default(), List::default());
    let (one, other) =
        tokio::join!(listed.ask(client, errand, digest), tagged.look_up(client, errand, digest));
    let mut failures: Vec<Error> = [one, other].into_iter().filter_map(Result::err).collect();
    let mut wanted = in_order([tagged.candidates, listed.candidates].concat());
    let others = remaining(&wanted, [tagged.others, listed.others].concat());
    if wanted.len() > REFERRERS {
        failures.push(too_many(errand));
        wanted.truncate(REFERRERS);
    }
    let fetches = wanted.into_iter().map(async |candidate: Candidate| Opened {
        signatures: fetch(client, errand, &candidate.digest, digest).await,
        descriptor: candidate.descriptor,
    });
    let opened = stream::iter(fetches).buffered(AT_A_TIME).collect().await;
    Survey { opened, others, failures }
}

/// The candidates in the order in which they are looked at, each once; nothing if there are too many.
pub(in crate::fetch) fn first(candidates: Vec<Candidate>) -> Option<Vec<Candidate>> {
    let wanted = in_order(candidates);
    (wanted.len() <= REFERRERS).then_some(wanted)
}

/// What is said to be a signature comes before what is said to be something else, of which there may be much.
fn in_order(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| candidate.rank);
    let mut known = BTreeSet::new();
    candidates.retain(|candidate| known.insert(candidate.digest.to_string()));
    candidates
}

/// The others that are no candidates under the same digest, each once.
pub(in crate::fetch) fn remaining(candidates: &[Candidate], mut others: Vec<Descriptor>) -> Vec<Descriptor> {
    let mut known: BTreeSet<_> = candidates.iter().map(|c| Some(c.digest.to_string())).collect();
    others.retain(|other| known.insert(other.digest.clone()));
    others
}

impl Found {
    /// Nothing, because of this.
    pub(in crate::fetch) fn failed(error: Error) -> Self {
        Self { failure: Some(error), ..Self::default() }
    }

    pub(in crate::fetch) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }
}

/// What a list names, as far as it could be read.
#[derive(Default)]
pub(in crate::fetch) struct List {
    pub(in crate::fetch) candidates: Vec<Candidate>,
    /// What the list calls something else than a signature.
    pub(in crate::fetch) others: Vec<Descriptor>,
}

/// What may be a signature.
#[derive(Clone)]
pub(in crate::fetch) struct Candidate {
    pub(in crate::fetch) digest: Digest,
    pub(in crate::fetch) descriptor: Descriptor,
    rank: Rank,
}

/// What a list says of a manifest, which only decides what is fetched first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// That it is a signature.
    Signature,
    /// Nothing.
    Unknown,
    /// That it is something else, such as an attestation.
    Other,
}

impl List {
    /// Asks the referrers API; nothing is there where the registry does not have it.
    async fn ask(&mut self, client: &Client, errand: &Errand<'_>, digest: &Digest) -> Result<(), Error> {
        let mut asked = BTreeSet::new();
        let mut query = None;
        loop {
            let Page { body, next } = match client.referrers(errand, digest, query.as_deref()).await? {
                Some(page) => page,
                None => return Ok(()),
            };
            self.add(&body, errand)?;
            match next {
                None => return Ok(()),
                Some(next) if asked.len() + 1 < PAGES && asked.insert(next.clone()) => query = Some(next),
                Some(_) => return Err(protocol(errand, "the list of referrers does not end")),
            }
        }
    }

    /// Reads the index at the tag `sha256-<hex>`; nothing is there if there is no such tag, or no index.
    async fn look_up(&mut self, client: &Client, errand: &Errand<'_>, digest: &Digest) -> Result<(), Error> {
        let tag = format!("{}-{}", digest.algorithm().name(), digest.hex());
        match client.referrers_tag(errand, &tag).await? {
            Some(document) if crate::manifest::is_index(&document.media_type) => {
                self.add(&document.bytes, errand)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn add(&mut self, index: &[u8], errand: &Errand<'_>) -> Result<(), Error> {
        let List { candidates, others } = List::read(index).ok_or_else(|| malformed(errand))?;
        self.candidates.extend(candidates);
        self.others.extend(others);
        self.others.truncate(LISTED);
        if self.candidates.len() > LISTED {
            self.candidates.truncate(LISTED);
            return Err(too_many(errand));
        }
        Ok(())
    }
}

/// The signatures of one referrer; none if it is something else.
async fn fetch(
    client: &Client,
    errand: &Errand<'_>,
    referrer: &Digest,
    subject: &Digest,
) -> Result<Vec<LocatedSignature>, Error> {
    let document = match client.manifest(errand, &referrer.to_string()).await {
        Ok(document) => document,
        // What is there is no manifest, and will never be a signature.
        Err(Error::Manifest { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut signatures = Vec::new();
    for (layer, number) in Layer::of(&document.bytes, subject).into_iter().zip(1_usize..) {
        let bytes = client.blob(errand, &layer.digest, SIGNATURE_BYTES).await?;
        let location = format!("docker://{}@{referrer}#{number}", errand.image.name());
        signatures.extend(layer.signature(bytes).map(|signature| LocatedSignature { location, signature }));
    }
    Ok(signatures)
}

impl List {
    /// Reads an index: what may be signatures, by the types that the list itself gives, and the rest.
    pub(in crate::fetch) fn read(index: &[u8]) -> Option<Self> {
        let index = json::parse(index, LIMITS).ok()?;
        let entries = index.member("manifests").ok()??.elements()?;
        let mut list = Self::default();
        for entry in entries {
            let text = |name| Some(entry.member(name).ok()?.and_then(Value::text).unwrap_or_default());
            let (media_type, artifact_type) = (text("mediaType")?, text("artifactType")?);
            let says_nothing = artifact_type.is_empty() || artifact_type == EMPTY;
            let is_candidate = says_nothing || Kind::of(artifact_type).is_some();
            let descriptor = describe(entry);
            if media_type == OCI_MANIFEST && is_candidate {
                let said = entry.member("annotations").ok()?.and_then(|all| all.member(PREDICATE).ok()?);
                let rank = match said.and_then(Value::text) {
                    None => Rank::Unknown,
                    Some(COSIGN_SIGN) => Rank::Signature,
                    Some(_) => Rank::Other,
                };
                let digest = Digest::parse(text("digest")?)?;
                list.candidates.push(Candidate { digest, descriptor, rank });
            } else {
                list.others.push(descriptor);
            }
        }
        Some(list)
    }
}

/// What an entry of a list says, as far as it can be read.
fn describe(entry: &Value<'_>) -> Descriptor {
    let member = |name| entry.member(name).ok().flatten();
    let text = |name| member(name).and_then(Value::text).map(clip);
    let predicate = member("annotations").and_then(|all| all.member(PREDICATE).ok()?);
    Descriptor {
        media_type: text("mediaType"),
        artifact_type: text("artifactType"),
        predicate_type: predicate.and_then(Value::text).map(clip),
        digest: text("digest"),
        size: member("size").and_then(size),
    }
}

/// A number of bytes.
fn size(value: &Value<'_>) -> Option<u64> {
    match &value.data {
        json::Data::Number(number) => number.parse().ok(),
        json::Data::Null
        | json::Data::Bool(_)
        | json::Data::String(_)
        | json::Data::Array(_)
        | json::Data::Object(_) => None,
    }
}

/// Whether a manifest refers to the one with this digest.
pub(in crate::fetch) fn refers(manifest: &[u8], subject: &Digest) -> bool {
    let refers = |manifest: &Value<'_>| {
        let digest = manifest.member("subject").ok()??.member("digest").ok()??.text()?;
        Some(Digest::parse(digest)? == *subject)
    };
    json::parse(manifest, LIMITS).is_ok_and(|manifest| refers(&manifest) == Some(true))
}

/// What a referrer is, if it is one for us; seeds-and-formats, section 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A Sigstore bundle, of whichever version.
    Bundle,
    /// Simple-signing payloads with annotations, as cosign 2 writes them when asked to.
    Cosign,
}

impl Kind {
    fn of(media_type: &str) -> Option<Self> {
        if media_type == COSIGN {
            Some(Self::Cosign)
        } else if media_type.starts_with(BUNDLE) {
            Some(Self::Bundle)
        } else {
            None
        }
    }
}

/// A layer that may be a signature.
pub(in crate::fetch) struct Layer {
    kind: Kind,
    media_type: String,
    pub(in crate::fetch) digest: Digest,
    size: usize,
    annotations: BTreeMap<String, String>,
}

impl Layer {
    /// The layers of a manifest that refers to `subject`; none if it refers to another, or is something else.
    pub(in crate::fetch) fn of(manifest: &[u8], subject: &Digest) -> Vec<Self> {
        Self::read(manifest, subject).unwrap_or_default()
    }

    fn read(manifest: &[u8], subject: &Digest) -> Option<Vec<Self>> {
        let manifest = json::parse(manifest, LIMITS).ok()?;
        let text = |value: &Value<'_>, name: &str| {
            Some(value.member(name).ok()?.and_then(Value::text).unwrap_or_default().to_owned())
        };
        let referred = manifest.member("subject").ok()??;
        if Digest::parse(&text(referred, "digest")?)? != *subject {
            return None;
        }
        let artifact_type = text(&manifest, "artifactType")?;
        let kind = if artifact_type.is_empty() {
            Kind::of(&text(manifest.member("config").ok()??, "mediaType")?)?
        } else {
            Kind::of(&artifact_type)?
        };
        let layers = manifest.member("layers").ok()??.elements()?;
        let most = match kind {
            Kind::Bundle => 1,
            Kind::Cosign => LAYERS,
        };
        if layers.len() > most {
            return None;
        }
        let layer = |layer: &Value<'_>| {
            let mut annotations = BTreeMap::new();
            if let Some(members) = layer.member("annotations").ok()? {
                for member in members.members().filter(|members| members.len() <= ANNOTATIONS)? {
                    annotations.insert(member.key.clone().into_owned(), member.value.text()?.to_owned());
                }
            }
            let size = usize::try_from(size(layer.member("size").ok()??)?).ok()?;
            let digest = Digest::parse(&text(layer, "digest")?)?;
            Some(Self { kind, media_type: text(layer, "mediaType")?, digest, size, annotations })
        };
        layers.iter().map(layer).collect()
    }

    /// The signature that the layer is, if it is as long as its descriptor says.
    pub(in crate::fetch) fn signature(self, bytes: Vec<u8>) -> Option<UntrustedSignature> {
        if bytes.len() != self.size {
            return None;
        }
        Some(match self.kind {
            Kind::Bundle => UntrustedSignature::Bundle(bytes),
            Kind::Cosign => UntrustedSignature::Sigstore(UntrustedSigstore {
                mime_type: self.media_type,
                payload: bytes,
                annotations: self.annotations,
            }),
        })
    }
}

fn too_many(errand: &Errand<'_>) -> Error {
    protocol(errand, &format!("the manifest has more than {REFERRERS} referrers"))
}

fn malformed(errand: &Errand<'_>) -> Error {
    protocol(errand, "the list of referrers is not an image index")
}

fn protocol(errand: &Errand<'_>, detail: &str) -> Error {
    Error::RegistryProtocol { registry: errand.image.domain().to_owned(), detail: detail.to_owned() }
}

/// What a list and a manifest may hold (T-28).
const LIMITS: Limits = Limits { depth: 64, values: 100_000 };

/// The type of a Sigstore bundle, up to its version.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// The type of cosign 2's signatures as referrers.
const COSIGN: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// The type of no configuration at all, which lists give as that of the manifest where they know only old rules.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What cosign 3 says of a bundle beside it; seeds-and-formats, section 1.2.
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// The predicate type of cosign's signatures.
const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// Most candidates of one list that are kept: 10,000.
const LISTED: usize = 10_000;

/// Most layers of one manifest of signatures: 64.
const LAYERS: usize = 64;

/// Referrers fetched at a time, as layers of attachments.
const AT_A_TIME: usize = 4;
