//! Signatures in a lookaside store: `signature-1`, `signature-2` and so on, until one is missing.

use tokio::time::Instant;

use crate::config::{LookasideUrl, RegularFile};
use crate::digest::Digest;
use crate::evaluate::evidence::LocatedSignature;
use crate::fetch::registry::{Client, Errand};
use crate::fetch::{Budget, Error, SIGNATURE_BYTES};
use crate::verify::UntrustedSignature;

/// Most signatures of one manifest in a store: 127 (rule K-5).
pub const SIGNATURES: usize = 127;

/// The signatures of the manifest with this digest.
///
/// `base` is what registries.d gives for the image. Anything but a file or "missing" is an error, and one
/// blob that is no signature spoils all (rules K-4, B-5).
pub async fn signatures(
    client: &Client,
    errand: &Errand<'_>,
    base: &LookasideUrl,
    digest: &Digest,
) -> Result<Vec<LocatedSignature>, Error> {
    let mut found = Vec::new();
    add(client, errand, base, digest, &mut found).await?;
    Ok(found)
}

/// Adds the signatures one by one; those before a failure stay.
pub(in crate::fetch) async fn add(
    client: &Client,
    errand: &Errand<'_>,
    base: &LookasideUrl,
    digest: &Digest,
    found: &mut Vec<LocatedSignature>,
) -> Result<(), Error> {
    loop {
        let url = base.signature(digest, found.len().saturating_add(1));
        let blob = if url.is_http() {
            if url.has_credentials() && !errand.principal.has_lookaside_credentials() {
                return Err(failed(&url, "its URL holds credentials of this host".to_owned()));
            }
            client.get_lookaside(errand, &url.with_credentials(), SIGNATURE_BYTES).await?
        } else {
            read_file(&url, errand.budget, errand.deadline).await?
        };
        let Some(blob) = blob else { return Ok(()) };
        if found.len() == SIGNATURES {
            return Err(failed(&url, format!("there are more than {SIGNATURES} signatures")));
        }
        let signature = UntrustedSignature::from_blob(&blob).map_err(|error| Error::MalformedSignature {
            location: url.to_string(),
            detail: error.to_string(),
        })?;
        found.push(LocatedSignature { location: url.to_string(), signature });
    }
}

/// The bytes of a `file` URL; nothing if there is no such file.
async fn read_file(url: &LookasideUrl, budget: &Budget, deadline: Instant) -> Result<Option<Vec<u8>>, Error> {
    let Some(path) = url.file_path() else {
        return Err(failed(url, "only https, http and file:/// URLs can be read".to_owned()));
    };
    let read = tokio::task::spawn_blocking(move || match RegularFile::find(&path)? {
        Some(file) => file.read(SIGNATURE_BYTES).map(Some),
        None => Ok(None),
    });
    let read = tokio::time::timeout_at(deadline, read)
        .await
        .map_err(|_| Error::TimedOut { waiting_for: format!("the lookaside store {url}") })?;
    let bytes = read
        .map_err(|error| failed(url, error.to_string()))?
        .map_err(|error| failed(url, error.to_string()))?;
    budget.bytes(bytes.as_ref().map_or(0, Vec::len))?;
    Ok(bytes)
}

fn failed(url: &LookasideUrl, detail: String) -> Error {
    Error::Lookaside { location: url.to_string(), detail }
}
