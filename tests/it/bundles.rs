//! Sigstore bundles: the conformance suite, and bundles of our own.

use std::fs;
use std::path::{Path, PathBuf};

use vouchd::digest::Digest;
use vouchd::verify::Rejection;
use vouchd::verify::bundle::{Artifact, BundleClaim, BundleSigner, Lacking, Trust, verify_blob};
use vouchd::verify::trust::KeyMaterial;
use vouchd::verify::trusted_root::TrustedRoot;

use crate::support;

/// The conformance suite, which stands beside the checkout if at all.
fn conformance() -> Option<PathBuf> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures/sigstore-conformance/bundle-verify");
    if path.is_dir() {
        return Some(path);
    }
    support::skip_without(&path);
    None
}

/// Each case that must be refused, and the code of the reason that its description states.
const REFUSED: &[(&str, &str)] = &[
    ("bundle-empty-certificate-chain_fail", "bundle-malformed"),
    ("bundle-from-wrong-instance_fail", "log-entry-invalid"),
    ("bundle-invalid-base64-signature_fail", "bundle-malformed"),
];

/// What the suite asks of a client, in process: `code` is that of the refusal.
fn judge(case: &Path, digest_only: bool) -> Result<BundleClaim, String> {
    let read = |name: &str| fs::read(case.join(name)).ok();
    let beside = |name: &str| fs::read(case.parent().unwrap().parent().unwrap().join(name)).unwrap();
    let artifact = read("artifact").unwrap_or_else(|| beside("a.txt"));
    let bundle = read("bundle.sigstore.json").unwrap();
    let own_root = read("trusted_root.json").map(|json| TrustedRoot::parse(&json));
    let own_root = own_root.transpose().map_err(|error| error.code().to_string())?;
    let root = own_root.as_ref().unwrap_or_else(|| TrustedRoot::embedded());
    let key = read("key.pub").map(|pem| KeyMaterial::new("key.pub".to_owned(), pem));
    let keys: Vec<&KeyMaterial> = key.iter().collect();
    let trust = if keys.is_empty() {
        Trust::Certificates { root, lacking: Lacking::Refused }
    } else {
        Trust::Keys { keys: &keys, root: Some(root) }
    };
    let digest = Digest::sha256(&artifact);
    let artifact = if digest_only { Artifact::Sha256(&digest) } else { Artifact::Bytes(&artifact) };
    match verify_blob(&bundle, artifact, trust) {
        Ok(verified) => Ok(verified.get().clone()),
        Err(rejection) => Err(format!("{}: {rejection}", rejection.code())),
    }
}

#[test]
fn the_conformance_suite_is_judged_as_it_says() {
    let Some(directory) = conformance() else { return };
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    for case in &cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        for digest_only in [false, true] {
            let judged = judge(case, digest_only);
            support::say("case", &format!("{name} {digest_only} {:?}", judged.map(|c| c.times)));
        }
    }
}
