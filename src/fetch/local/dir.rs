//! Images in `dir:` form.

use std::path::Path;

use super::{invalid, read, read_if_there};
use crate::digest::{Algorithm, Digest};
use crate::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use crate::fetch::lookaside::SIGNATURES;
use crate::fetch::{Budget, Error, MANIFEST_BYTES, SIGNATURE_BYTES};
use crate::manifest;
use crate::verify::UntrustedSignature;

/// The manifest of a `dir:` directory, or that of one instance of its index (rule B-6). It blocks.
///
/// Whether the bytes have the digest is for the judgement to say, as for every instance.
pub fn read_dir(path: &str, instance: Option<&Digest>, budget: &Budget) -> Result<ManifestEvidence, Error> {
    let name = format!("{}manifest.json", prefix(instance));
    let bytes = read(&Path::new(path).join(name), MANIFEST_BYTES, budget)?;
    let media_type = manifest::sniff_media_type(&bytes).to_owned();
    Ok(ManifestEvidence { bytes, media_type, signatures: Vec::new() })
}

/// The signatures of a `dir:` directory, or those of one instance of its index (rule B-6). It blocks.
pub fn read_dir_signatures(
    path: &str,
    instance: Option<&Digest>,
    budget: &Budget,
) -> Result<Vec<LocatedSignature>, Error> {
    let mut signatures = Vec::new();
    loop {
        let number = signatures.len().saturating_add(1);
        let path = Path::new(path).join(format!("{}signature-{number}", prefix(instance)));
        let Some(blob) = read_if_there(&path, SIGNATURE_BYTES, budget)? else { break };
        if signatures.len() == SIGNATURES {
            return Err(invalid(&path, &format!("there are more than {SIGNATURES} signatures")));
        }
        let location = path.to_string_lossy().into_owned();
        let signature = UntrustedSignature::from_blob(&blob).map_err(|error| Error::MalformedSignature {
            location: location.clone(),
            detail: error.to_string(),
        })?;
        signatures.push(LocatedSignature { location, signature });
    }
    Ok(signatures)
}

/// What the names of an instance's files begin with (rule B-6).
fn prefix(instance: Option<&Digest>) -> String {
    match instance.map(|digest| (digest.algorithm(), digest.hex())) {
        None => String::new(),
        Some((Algorithm::Sha256, hex)) => format!("{hex}."),
        Some((algorithm @ (Algorithm::Sha384 | Algorithm::Sha512), hex)) => {
            format!("{}-{hex}.", algorithm.name())
        }
    }
}
