//! Referrers: manifests that name another one as their `subject`, as cosign 3 attaches signatures.
//!
//! OCI distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema". Both places are asked and what they list
//! is united. A list is a hint: only a manifest that itself names the subject counts.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};

use crate::digest::Digest;
use crate::evaluate::evidence::LocatedSignature;
use crate::fetch::attachment::ANNOTATIONS;
use crate::fetch::registry::{Client, Errand, Page};
use crate::fetch::{Error, SIGNATURE_BYTES};
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
    let mut found = Found::default();
    let (mut listed, mut tagged) = (List::default(), List::default());
    let (one, other) =
        tokio::join!(listed.ask(client, errand, digest), tagged.look_up(client, errand, digest));
    for error in [one, other].into_iter().filter_map(Result::err) {
        found.fail(error);
    }
    let mut wanted = in_order([tagged.candidates, listed.candidates].concat());
    if wanted.len() > REFERRERS {
        found.fail(too_many(errand));
        wanted.truncate(REFERRERS);
    }
    let fetches =
        wanted.into_iter().map(async |referrer: Digest| fetch(client, errand, &referrer, digest).await);
    let mut answers = stream::iter(fetches).buffered(AT_A_TIME);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(signatures) => found.signatures.extend(signatures),
            Err(error) => found.fail(error),
        }
    }
    found
}

/// The candidates in the order in which they are looked at, each once; nothing if there are too many.
pub(in crate::fetch) fn first(candidates: Vec<Candidate>) -> Option<Vec<Digest>> {
    let wanted = in_order(candidates);
    (wanted.len() <= REFERRERS).then_some(wanted)
}

/// What is said to be a signature comes before what is said to be something else, of which there may be much.
fn in_order(mut candidates: Vec<Candidate>) -> Vec<Digest> {
    candidates.sort_by_key(|candidate| candidate.rank);
    let mut known = BTreeSet::new();
    candidates.retain(|candidate| known.insert(candidate.digest.to_string()));
    candidates.into_iter().map(|candidate| candidate.digest).collect()
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
struct List {
    candidates: Vec<Candidate>,
}

/// What may be a signature.
#[derive(Clone)]
pub(in crate::fetch) struct Candidate {
    digest: Digest,
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
        self.candidates.extend(candidates(index).ok_or_else(|| malformed(errand))?);
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

/// What may be signatures, by the types that the list itself gives.
pub(in crate::fetch) fn candidates(index: &[u8]) -> Option<Vec<Candidate>> {
    let index = json::parse(index, LIMITS).ok()?;
    let entries = index.member("manifests").ok()??.elements()?;
    let mut candidates = Vec::new();
    for entry in entries {
        let text = |name| Some(entry.member(name).ok()?.and_then(Value::text).unwrap_or_default());
        let (media_type, artifact_type) = (text("mediaType")?, text("artifactType")?);
        let is_candidate = artifact_type.is_empty() || Kind::of(artifact_type).is_some();
        if media_type == OCI_MANIFEST && is_candidate {
            let said = entry.member("annotations").ok()?.and_then(|all| all.member(PREDICATE).ok()?);
            let rank = match said.and_then(Value::text) {
                None => Rank::Unknown,
                Some(COSIGN_SIGN) => Rank::Signature,
                Some(_) => Rank::Other,
            };
            candidates.push(Candidate { digest: Digest::parse(text("digest")?)?, rank });
        }
    }
    Some(candidates)
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
            let size = match &layer.member("size").ok()??.data {
                json::Data::Number(number) => number.parse().ok()?,
                json::Data::Null
                | json::Data::Bool(_)
                | json::Data::String(_)
                | json::Data::Array(_)
                | json::Data::Object(_) => return None,
            };
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
