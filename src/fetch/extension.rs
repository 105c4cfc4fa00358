//! Signatures that a registry keeps itself: the API extension of OpenShift's registry (rules ).

use serde::Deserialize;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;
use crate::evaluate::evidence::LocatedSignature;
use crate::fetch::registry::{Client, Errand};
use crate::fetch::{Error, SIGNATURE_BYTES};
use crate::verify::UntrustedSignature;

/// The signatures of the manifest with this digest. Any answer but 200 is an error (rule X-2).
///
/// Only entries of version 2 and type `atomic` count; they are simple signing, however they begin (rule X-3).
pub async fn signatures(
    client: &Client,
    errand: &Errand<'_>,
    digest: &Digest,
) -> Result<Vec<LocatedSignature>, Error> {
    let place = format!("/extensions/v2/{}/signatures/{digest}", errand.image.path());
    let body = client.extension(errand, &place, SIGNATURE_BYTES).await?;
    let location = format!("https://{}{place}", errand.image.domain());
    let broken = |detail: String| Error::MalformedSignature { location: location.clone(), detail };
    let list: List = serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
    let entries = list.signatures.unwrap_or_default();
    if entries.len() > SIGNATURES {
        return Err(broken(format!("there are more than {SIGNATURES} signatures")));
    }
    let mut found = Vec::new();
    for (entry, number) in entries.into_iter().zip(1..) {
        let content = entry.content.unwrap_or_default();
        let content: String = content.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        // Also in entries that do not count, as the reference's decoder does.
        let blob = STANDARD.decode(content).map_err(|error| broken(format!("entry {number}: {error}")))?;
        if entry.version == Some(2) && entry.kind.as_deref() == Some("atomic") {
            let location = format!("{location}#{number}");
            found.push(LocatedSignature { location, signature: UntrustedSignature::SimpleSigning(blob) });
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
struct List {
    signatures: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "schemaVersion")]
    version: Option<i64>,
    #[serde(rename = "type")]
    kind: Option<String>,
    content: Option<String>,
}

/// Most entries: as many as a lookaside store may have (rule K-5).
const SIGNATURES: usize = crate::fetch::lookaside::SIGNATURES;
