//! [`Statement`]: what a DSSE envelope says, in-toto attestation framework, Statement v0.1 and v1.

use std::collections::BTreeMap;

use crate::diagnostic::clip;
use crate::digest::Digest;
use crate::json::{self, Value};
use crate::nonempty::NonEmpty;
use crate::verify::protojson::{Message, check_unique};
use crate::verify::{ANNOTATIONS, PAYLOAD, Rejection};

/// The payload type of a statement.
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The type of predicate that makes a statement a signature; cosign, `pkg/types/predicate.go`.
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A statement about one artifact.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) predicate_type: String,
    has_predicate_object: bool,
    /// The subjects that are the artifact.
    pub(super) subjects: NonEmpty<NamedSubject>,
}

/// An artifact that a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSubject {
    /// Its name, if it has one, even an empty one.
    pub name: Option<String>,
    /// Its annotations, as far as they are strings.
    pub annotations: BTreeMap<String, String>,
}

impl Statement {
    /// Reads a statement and finds its subjects with that SHA-256.
    pub(super) fn parse(payload: &[u8], artifact: &Digest) -> Result<Self, Rejection> {
        let malformed = |detail: String| Rejection::BundleMalformed { detail };
        let value = json::parse(payload, PAYLOAD).map_err(|e| malformed(e.reason.to_owned()))?;
        check_unique(&value).map_err(malformed)?;
        let known = ["_type", "subject", "predicateType", "predicate"];
        let message = Message::open("the statement", &value, &known).map_err(malformed)?;
        match message.required_text("_type").map_err(malformed)? {
            "https://in-toto.io/Statement/v1" | "https://in-toto.io/Statement/v0.1" => {}
            other => return Err(Rejection::NotASignature { what: clip(other) }),
        }
        let predicate_type = message.required_text("predicateType").map_err(malformed)?.to_owned();
        let has_predicate_object = message.get("predicate").is_some_and(|value| value.members().is_some());
        let mut subjects = Vec::new();
        for value in message.list("subject").map_err(malformed)? {
            subjects.extend(subject(value, artifact).map_err(malformed)?);
        }
        let subjects = NonEmpty::from_vec(subjects)
            .ok_or_else(|| Rejection::BundleSubject { wanted: artifact.clone() })?;
        Ok(Self { predicate_type, has_predicate_object, subjects })
    }

    /// The statement is a signature, not an attestation; cosign itself does not ask (design decision 5).
    pub(super) fn check_sign(&self) -> Result<(), Rejection> {
        if self.predicate_type != SIGN {
            return Err(Rejection::NotASignature { what: clip(&self.predicate_type) });
        }
        if !self.has_predicate_object {
            return Err(Rejection::BundleMalformed { detail: "the predicate is not an object".to_owned() });
        }
        Ok(())
    }
}

/// The subject, if it is the artifact; only its SHA-256 tells, in lower case.
fn subject(value: &Value<'_>, artifact: &Digest) -> Result<Option<NamedSubject>, String> {
    let known = ["name", "uri", "digest", "content", "downloadLocation", "mediaType", "annotations"];
    let message = Message::open("a subject", value, &known)?;
    let digest = Message::open("\"digest\"", message.required("digest")?, &["sha256"])?;
    let name = message.text("name")?.map(str::to_owned);
    let annotations = annotations(message)?;
    let is_artifact = digest.text("sha256")? == Some(artifact.hex());
    Ok(is_artifact.then_some(NamedSubject { name, annotations }))
}

fn annotations(subject: Message<'_, '_>) -> Result<BTreeMap<String, String>, String> {
    let Some(value) = subject.get("annotations") else { return Ok(BTreeMap::new()) };
    let members = value.members().ok_or("\"annotations\" is not an object")?;
    if members.len() > ANNOTATIONS {
        return Err("a subject has too many annotations".to_owned());
    }
    let strings =
        members.iter().filter_map(|m| Some((m.key.clone().into_owned(), m.value.text()?.to_owned())));
    Ok(strings.collect())
}
